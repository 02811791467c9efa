//! One identity provider, ready to verify with.

use std::sync::Arc;

use provost_data_pipeline::{Caller, SubjectToken};
use provost_types::{IdentityProviderSpec, Kind, Name, PrincipalRef, ResourceKey, Snapshot, Spec};

use super::{
    claims,
    fault::TokenFault,
    fetch::Whence,
    jwk::KeySet,
    jwt::{Claims, Unverified},
    keys::KeySource,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) tenant: Name,
    pub(super) name: Name,
    pub(super) spec: IdentityProviderSpec,
    pub(super) keys: Arc<KeySource>,
}

/// For which endpoint of ours a token is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// All of them.
    Node,
    /// `/mcp/PLUGIN`.
    Plugin(Name),
}

/// What a token was found to be.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) caller: Arc<Caller>,
    pub(super) audience: Vec<Audience>,
    /// The second from which it is refused.
    pub(super) ends_s: u64,
    /// The keys that it was verified with.
    pub(super) keys: Arc<KeySet>,
    pub(super) source: Arc<KeySource>,
}

impl Provider {
    pub(super) fn whence(spec: &IdentityProviderSpec) -> Whence {
        Whence { issuer: spec.issuer.clone(), jwks_uri: spec.jwks_uri.clone() }
    }

    /// Verifies a token of this provider's issuer: the signature first, and nothing else before it.
    pub(super) fn verify(
        &self,
        token: Unverified<'_>,
        snapshot: &Snapshot,
        own: &[String],
        now_s: u64,
    ) -> Result<Verified, TokenFault> {
        if !self.spec.algorithms.contains(&token.algorithm) {
            return Err(TokenFault::Form("its `alg` is none that is taken"));
        }
        let keys = self.keys.current().ok_or(TokenFault::NoKeys)?;
        keys.verify(&token)?;
        let subject = SubjectToken::verified(token.text);
        let claims = token.claims_of_signed();
        claims.check_kind()?;
        let ends_s = claims.check_time(now_s, self.spec.leeway_seconds)?;
        let audience = self.audience(&claims, own);
        if audience.is_empty() {
            return Err(TokenFault::Audience);
        }
        let (name, facts) = claims::caller(&self.name, &self.spec, &claims, |name| {
            let key = ResourceKey { kind: Kind::Principal, tenant: Some(self.tenant.clone()), name: name.clone() };
            match snapshot.get(&key).map(|resource| &resource.spec) {
                Some(Spec::Principal(principal)) => Some(principal),
                _ => None,
            }
        })?;
        let caller = Arc::new(Caller {
            principal: PrincipalRef { tenant: self.tenant.clone(), name },
            authenticated_by: format!("jwt:{}", self.name),
            token: Some(Arc::new(facts)),
            subject: Some(subject),
        });
        Ok(Verified { caller, audience, ends_s, keys, source: self.keys.clone() })
    }

    /// The endpoints that the token is meant for. `own` are the node's own addresses, each without `/mcp`.
    fn audience(&self, claims: &Claims, own: &[String]) -> Vec<Audience> {
        let meant = |audience: &str| {
            if !self.spec.audiences.is_empty() {
                return self.spec.audiences.contains(audience).then_some(Audience::Node);
            }
            let path = own.iter().find_map(|base| audience.strip_prefix(base.as_str()))?;
            match path {
                "" | "/" | "/mcp" => Some(Audience::Node),
                _ => Name::new(path.strip_prefix("/mcp/")?).ok().map(Audience::Plugin),
            }
        };
        claims.audiences().into_iter().filter_map(meant).collect()
    }
}
