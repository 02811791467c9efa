//! The providers of one revision, and what was verified under it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use provost_data_pipeline::{Authorization, Caller, Rejection, Route};
use provost_types::{Kind, Name, Snapshot, Spec};

use super::{
    cache::TokenCache,
    fault::TokenFault,
    jwt::{MAX_TOKEN_BYTES, Unverified},
    keys::KeySource,
    provider::{Audience, Provider, Verified},
};

/// The most scopes that a refusal names: a header has bounds.
const MAX_NAMED_SCOPES: usize = 32;

/// Whether a bearer token has the form of a JWT: three parts, which no key of ours has.
pub(crate) fn is_jwt(token: &str) -> bool {
    token.len() <= MAX_TOKEN_BYTES && token.bytes().filter(|b| *b == b'.').count() == 2
}

/// See the module. What was verified is remembered with the revision, so that a change of providers or principals
/// forgets it.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    by_issuer: HashMap<String, Provider>,
    verified: TokenCache<Verified>,
    authorization: Authorization,
}

impl Tokens {
    /// The providers of a snapshot. Keys are taken over from `before`.
    pub(crate) fn compile(snapshot: &Snapshot, before: Option<&Self>) -> Self {
        let mut by_issuer = HashMap::new();
        let mut scopes = BTreeSet::new();
        for resource in snapshot.of_kind(Kind::IdentityProvider) {
            let (Spec::IdentityProvider(spec), Some(tenant)) = (&resource.spec, &resource.metadata.tenant) else {
                continue;
            };
            let whence = Provider::whence(spec);
            let known = before.and_then(|before| before.by_issuer.get(&spec.issuer)).map(|known| known.keys.clone());
            let keys = known.filter(|keys| *keys.whence() == whence);
            let keys = keys.unwrap_or_else(|| Arc::new(KeySource::new(whence)));
            scopes.extend(spec.scopes.keys().cloned());
            let (tenant, name) = (tenant.clone(), resource.metadata.name.clone());
            // Admission lets an issuer in once.
            by_issuer.insert(spec.issuer.clone(), Provider { tenant, name, spec: spec.clone(), keys });
        }
        let mut servers: Vec<String> = by_issuer.keys().cloned().collect();
        servers.sort_unstable();
        let authorization = Authorization { servers, scopes: scopes.into_iter().collect() };
        Self { by_issuer, verified: TokenCache::default(), authorization }
    }

    /// Whether any tenant takes tokens.
    pub(crate) fn has_any(&self) -> bool {
        !self.by_issuer.is_empty()
    }

    /// Where tokens come from.
    pub(crate) fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// Begins to fetch the keys that are not here, so that the first caller need not wait for them.
    pub(crate) fn warm(&self) {
        for provider in self.by_issuer.values() {
            if provider.keys.current().is_none() {
                let _ = provider.keys.begin();
            }
        }
    }

    /// Fetches the keys that the token needs; waits a bounded time, and not at all for a token that can be decided
    /// on now.
    pub(crate) async fn prepare(&self, token: &str) {
        if let Some(known) = self.verified.get(blake3::hash(token.as_bytes()).as_bytes())
            && known.holds()
        {
            return known.source.prepare(None).await;
        }
        let Ok(unverified) = Unverified::parse(token) else { return };
        let Some(provider) = self.by_issuer.get(&unverified.issuer) else { return };
        if provider.spec.algorithms.contains(&unverified.algorithm) {
            provider.keys.prepare(Some(&unverified)).await;
        }
    }

    /// Whose token it is. `own` are the node's own addresses.
    pub(crate) fn authenticate(
        &self,
        token: &str,
        route: &Route,
        snapshot: &Snapshot,
        own: &[String],
        now_s: u64,
    ) -> Result<Arc<Caller>, Rejection> {
        self.verify(token, route, snapshot, own, now_s).map_err(|fault| self.challenge(fault.rejection()))
    }

    /// Tells the client which scopes there are.
    pub(crate) fn challenge(&self, rejection: Rejection) -> Rejection {
        let scopes = &self.authorization.scopes;
        if scopes.len() > MAX_NAMED_SCOPES { rejection } else { rejection.with_scopes(scopes.clone()) }
    }

    fn verify(
        &self,
        token: &str,
        route: &Route,
        snapshot: &Snapshot,
        own: &[String],
        now_s: u64,
    ) -> Result<Arc<Caller>, TokenFault> {
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(known) = self.verified.get(&hash)
            && known.holds()
        {
            return known.admit(route, now_s);
        }
        let unverified = Unverified::parse(token)?;
        let provider = self.by_issuer.get(&unverified.issuer).ok_or(TokenFault::Issuer)?;
        let verified = Arc::new(provider.verify(unverified, snapshot, own, now_s)?);
        self.verified.put(hash, verified.clone());
        verified.admit(route, now_s)
    }

    /// The roles that each scope gives in the provider of a caller, for those that it does not have.
    pub(crate) fn scopes_beyond(&self, tenant: &Name, provider: &Name, has: &BTreeSet<String>) -> Vec<Scope<'_>> {
        let mine = |p: &&Provider| p.tenant == *tenant && p.name == *provider;
        let Some(provider) = self.by_issuer.values().find(mine) else { return Vec::new() };
        let beyond = provider.spec.scopes.iter().filter(|(scope, _)| !has.contains(*scope));
        beyond.map(|(name, roles)| Scope { name, roles }).collect()
    }
}

/// A scope and the roles that it gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) name: &'a str,
    pub(crate) roles: &'a BTreeSet<Name>,
}

impl Verified {
    /// Whether the provider's keys are still those that it was verified with.
    fn holds(&self) -> bool {
        self.source.current().is_some_and(|keys| Arc::ptr_eq(&keys, &self.keys))
    }

    fn admit(&self, route: &Route, now_s: u64) -> Result<Arc<Caller>, TokenFault> {
        if now_s >= self.ends_s {
            return Err(TokenFault::Expired);
        }
        let meant = self.audience.iter().any(|audience| match audience {
            Audience::Node => true,
            Audience::Plugin(name) => matches!(route, Route::Plugin(asked) if asked == name),
        });
        if meant { Ok(self.caller.clone()) } else { Err(TokenFault::Audience) }
    }
}
