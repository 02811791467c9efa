//! Who vouches for callers: identity providers, and what a token of theirs says of one caller.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Name, PrincipalSpec, PrincipalType};

/// A signature algorithm of tokens (RFC 7518, RFC 8037). There is no `none`, and none that takes a shared
/// secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum TokenAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl TokenAlgorithm {
    /// Every algorithm.
    pub const ALL: [TokenAlgorithm; 9] = [
        TokenAlgorithm::RS256,
        TokenAlgorithm::RS384,
        TokenAlgorithm::RS512,
        TokenAlgorithm::PS256,
        TokenAlgorithm::PS384,
        TokenAlgorithm::PS512,
        TokenAlgorithm::ES256,
        TokenAlgorithm::ES384,
        TokenAlgorithm::EdDSA,
    ];

    /// The name as in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenAlgorithm::RS256 => "RS256",
            TokenAlgorithm::RS384 => "RS384",
            TokenAlgorithm::RS512 => "RS512",
            TokenAlgorithm::PS256 => "PS256",
            TokenAlgorithm::PS384 => "PS384",
            TokenAlgorithm::PS512 => "PS512",
            TokenAlgorithm::ES256 => "ES256",
            TokenAlgorithm::ES384 => "ES384",
            TokenAlgorithm::EdDSA => "EdDSA",
        }
    }

    /// What `alg` names. RFC 9864 calls EdDSA on Curve25519 `Ed25519`.
    pub fn named(alg: &str) -> Option<Self> {
        if alg == "Ed25519" {
            return Some(TokenAlgorithm::EdDSA);
        }
        Self::ALL.into_iter().find(|known| known.as_str() == alg)
    }
}

/// Whom an identity provider may bring in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderPrincipals {
    /// Only callers for whose name there is a `Principal`.
    #[default]
    Listed,
    /// Everybody to whom the provider gives a token: where there is no `Principal` of the name, the
    /// caller is what the token says.
    Any,
}

/// Roles by the values of a claim, such as groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RolesClaim {
    /// The claim: a text, or a list of them. `realm_access.roles` is the member `roles` of `realm_access`.
    pub claim: String,
    /// Values of the claim, and the roles that each gives. Other values give nothing.
    pub map: BTreeMap<String, BTreeSet<Name>>,
}

/// What is read from the claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClaimMapping {
    /// The claim with the caller's name. What is not a name (1 to 63 of `a-z0-9._-`) becomes one: what
    /// can be shown of it, `__`, and the beginning of its SHA-256.
    pub principal: String,
    /// Put before the name, so that callers of this provider are told from others.
    pub prefix: String,
    /// What callers without a `Principal` are.
    pub principal_type: PrincipalType,
    /// Attributes for policies: name, and the claim that has the value (a text, number or truth value).
    pub attributes: BTreeMap<String, String>,
    /// Roles by the values of a claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<RolesClaim>,
}

impl Default for ClaimMapping {
    fn default() -> Self {
        Self {
            principal: "sub".to_owned(),
            prefix: String::new(),
            principal_type: PrincipalType::Agent,
            attributes: BTreeMap::new(),
            roles: None,
        }
    }
}

/// An OAuth 2.1 authorization server whose access tokens (JWT) are taken from callers of this tenant. An
/// issuer belongs to one tenant. What a token gives comes on top of what the tenant's bindings give; nothing
/// is taken from a token that no mapping here names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IdentityProviderSpec {
    /// What the provider is for.
    #[serde(default)]
    pub description: String,
    /// The issuer, exactly as in the `iss` of its tokens: `https://…`; `http://` only on loopback.
    pub issuer: String,
    /// The values of `aud` that are meant for us. Default: the address of the node's MCP endpoint
    /// (`data_plane.public_url` and `/mcp`), as clients name it by RFC 8707.
    #[serde(default)]
    pub audiences: BTreeSet<String>,
    /// Where its keys are. Default: as its metadata says (OpenID Connect Discovery, RFC 8414).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Signature algorithms that are taken. Default: RS256, ES256, EdDSA.
    #[serde(default = "default_algorithms")]
    pub algorithms: BTreeSet<TokenAlgorithm>,
    /// Whom it may bring in: `listed` (those with a `Principal`) or `any`.
    #[serde(default)]
    pub principals: ProviderPrincipals,
    /// What is read from claims.
    #[serde(default)]
    pub claims: ClaimMapping,
    /// OAuth scopes, and the roles that each gives. A caller who lacks one is told which to ask for.
    #[serde(default)]
    pub scopes: BTreeMap<String, BTreeSet<Name>>,
    /// How far clocks may differ, in seconds; at most 300.
    #[serde(default = "default_leeway")]
    pub leeway_seconds: u64,
}

fn default_algorithms() -> BTreeSet<TokenAlgorithm> {
    [TokenAlgorithm::RS256, TokenAlgorithm::ES256, TokenAlgorithm::EdDSA].into()
}

fn default_leeway() -> u64 {
    60
}

/// What a verified token says of its caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// The caller for policies: of a `Principal` with what claims add to it, or made from claims alone.
    pub principal: PrincipalSpec,
    /// There is no `Principal` of that name, and none is needed.
    pub is_made: bool,
    /// Roles that the token gives, beside those that are bound to the name.
    pub roles: BTreeSet<Name>,
    /// The token's scopes that the provider's mapping names.
    pub scopes: BTreeSet<String>,
    /// The `IdentityProvider`.
    pub provider: Option<Name>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_have_the_names_of_documents_and_no_others() {
        for known in TokenAlgorithm::ALL {
            assert_eq!(serde_json::to_value(known).unwrap(), known.as_str());
            assert_eq!(TokenAlgorithm::named(known.as_str()), Some(known));
        }
        assert_eq!(TokenAlgorithm::named("Ed25519"), Some(TokenAlgorithm::EdDSA));
        for other in ["none", "None", "HS256", "HS512", "rs256", "ES256K", "Ed448", ""] {
            assert_eq!(TokenAlgorithm::named(other), None, "{other}");
        }
    }

    #[test]
    fn a_short_document_has_the_defaults() {
        let spec: IdentityProviderSpec = serde_json::from_str(r#"{"issuer":"https://id.example.com"}"#).unwrap();
        assert_eq!(spec.principals, ProviderPrincipals::Listed);
        assert_eq!((spec.claims.principal.as_str(), spec.leeway_seconds), ("sub", 60));
        assert_eq!(spec.algorithms, default_algorithms());
        let again: IdentityProviderSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }
}
