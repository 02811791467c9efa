//! How the gateway proves itself to an upstream with OAuth 2.1 (RFC 6749, 7523, 7636, 8414, 8693, 8707, 9728).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Name, SecretRef};

/// Where a plugin's access tokens come from: exactly one. The caller's own token is never sent upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UpstreamAuth {
    /// The plugin's own: one token for all callers (RFC 6749, 4.4).
    ClientCredentials(OAuthClient),
    /// One for each caller, given for the token that the caller came with (RFC 8693). A caller without one is
    /// refused. Lists, which are fetched once for all, use the client's own credentials.
    TokenExchange(OAuthClient),
    /// One for each caller, whom the caller let the gateway get in a browser (authorization code with PKCE). Who
    /// has not yet is asked to; see `provost connections`.
    PerUser(OAuthClient),
}

impl UpstreamAuth {
    /// Whom the gateway is at the authorization server.
    pub fn client(&self) -> &OAuthClient {
        match self {
            Self::ClientCredentials(client) | Self::TokenExchange(client) | Self::PerUser(client) => client,
        }
    }
}

/// A client of an authorization server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct OAuthClient {
    /// The token endpoint, `https://…`. Give this or `issuer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// The authorization server, whose metadata (RFC 8414, or OpenID Connect Discovery) names the token endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The authorization endpoint, beside `tokenUrl`. For `perUser` only; with neither and no `issuer`, the
    /// upstream's metadata (RFC 9728) names the authorization server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorize_url: Option<String>,
    /// The principal with whose consent the plugin's lists are fetched, for `perUser`. Default: without a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lists_as: Option<Name>,
    /// The client's id.
    pub client_id: String,
    /// The client's secret. Give this or `privateKeyJwt`; with `perUser` a client may have neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// Where the secret goes: `header` (HTTP Basic), or `body` for servers that want it there.
    #[serde(skip_serializing_if = "ClientSecretIn::is_header")]
    pub client_secret_in: ClientSecretIn,
    /// A key with which the client signs (RFC 7523) instead of a secret that it sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// The scopes to ask for, with spaces between them. Empty: what the server gives.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// The resource that the token is for (RFC 8707). Default: the plugin's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The audience that the token is for, where the server wants a name instead of, or beside, a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// Where a client's secret goes in a token request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientSecretIn {
    /// HTTP Basic, which every server must take (RFC 6749, 2.3.1).
    #[default]
    Header,
    /// The form.
    Body,
}

impl ClientSecretIn {
    fn is_header(&self) -> bool {
        *self == Self::Header
    }
}

/// A key that signs for a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PrivateKeyJwt {
    /// The private key, PKCS #8 in PEM.
    pub key: SecretRef,
    /// How it signs: `ES256`, `RS256` or `EdDSA`.
    pub algorithm: JwtAlgorithm,
    /// The key's id at the authorization server, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// A signature algorithm (RFC 7518).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum JwtAlgorithm {
    ES256,
    RS256,
    EdDSA,
}

impl JwtAlgorithm {
    /// The name in a JWT's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::RS256 => "RS256",
            Self::EdDSA => "EdDSA",
        }
    }
}
