//! Tokens that a user consented to: used, kept fresh by one node, and given up where they were taken back.
//!
//! Invariants: a token is used for the principal who consented, with the plugin and the authorization server that
//! it was given for; refresh tokens may be good once, so one node asks at a time, and what it got is kept before it
//! is used by others; work that was begun is brought to its end though its caller went away.

mod consent;
mod ending;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

pub use ending::AuthorityTold;
use http::HeaderValue;
use parking_lot::Mutex;
use provost_types::{Name, PrincipalRef};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{
    Core,
    cache::{Fetched, TokenCache, TokenKey},
    client::{self, Form, TokenAnswer},
};
use crate::{
    UpstreamError,
    connections::{Connections, Found, Keep, UserTokens, now_s},
};

/// The longest wait for another node that refreshes.
const OTHER_LIMIT: Duration = Duration::from_secs(5);
/// How often another node is waited for in one call.
const MAX_ROUNDS: usize = 8;
/// Tokens that an upstream refused and that are remembered as that.
const MAX_REFUSED: usize = 4_096;
/// So often what was got is taken to the control plane.
const MAX_KEEPS: usize = 3;
/// Between two of them.
const KEEP_PAUSE: Duration = Duration::from_millis(500);
/// So long before its end a token is refreshed, or a tenth of what is left if that is less.
const MARGIN_S: u64 = 30;

/// How the record names an end that the authorization server began.
const TAKEN_BACK: &str = "the authorization server takes its tokens no more";

/// How one fetch tells those that wait for it that they have to look again.
const OVERTAKEN: &str = "it was refreshed elsewhere";

/// Why a caller's token cannot be had.
enum Missing {
    /// Another node refreshes, or something else came first: look again.
    Overtaken,
    /// As the caller is told.
    Failed(UpstreamError),
}

/// The tokens of a plugin's users.
pub(super) struct PerUser {
    core: Arc<Core>,
    connections: Arc<Connections>,
    tenant: Name,
    plugin: Name,
    lists_as: Option<Name>,
    tokens: TokenCache,
    refused: Mutex<HashSet<TokenKey>>,
}

impl PerUser {
    pub(super) fn new(
        core: Arc<Core>,
        connections: Arc<Connections>,
        (tenant, plugin): (&Name, &Name),
        lists_as: Option<Name>,
    ) -> Arc<Self> {
        Arc::new(Self {
            core,
            connections,
            tenant: tenant.clone(),
            plugin: plugin.clone(),
            lists_as,
            tokens: TokenCache::default(),
            refused: Mutex::default(),
        })
    }

    /// With whose consent lists are fetched.
    pub(super) fn lister(&self) -> Option<PrincipalRef> {
        self.lists_as.clone().map(|name| PrincipalRef { tenant: self.tenant.clone(), name })
    }

    fn found(&self, principal: &PrincipalRef) -> Option<Found> {
        let found = self.connections.find(principal, &self.plugin)?;
        (found.authority() == self.core.authority()).then_some(found)
    }

    /// Whether the principal has consented, after a while if not yet.
    pub(super) async fn is_connected(&self, principal: &PrincipalRef, wait: Duration) -> bool {
        if self.found(principal).is_some() {
            return true;
        }
        let before = self.connections.find(principal, &self.plugin).map(|found| found.version());
        self.connections.changed(principal, &self.plugin, before, wait).await;
        self.found(principal).is_some()
    }

    /// When the flow began that led to what is there now.
    pub(super) fn began_ns(&self, principal: &PrincipalRef) -> u64 {
        self.connections.find(principal, &self.plugin).map_or(0, |found| found.began_ns())
    }

    /// The `authorization` header for a principal's request.
    pub(super) async fn header(self: &Arc<Self>, principal: &PrincipalRef) -> Result<HeaderValue, UpstreamError> {
        for _ in 0..MAX_ROUNDS {
            let found = self.found(principal).ok_or(UpstreamError::Consent)?;
            let (me, whose, of) = (self.clone(), principal.clone(), found.clone());
            // A task of its own: a refresh token that was used must not be lost with its caller.
            let renewing = tokio::spawn(async move { me.header_of(&whose, &of).await });
            match renewing.await {
                Ok(Ok(header)) => return Ok(header),
                Ok(Err(Missing::Failed(cause))) => return Err(cause),
                Ok(Err(Missing::Overtaken)) => {
                    self.connections.changed(principal, &self.plugin, Some(found.version()), OTHER_LIMIT).await;
                }
                Err(_) => return Err(UpstreamError::Token("refreshing it ended unexpectedly".to_owned())),
            }
        }
        Err(UpstreamError::Token("another node does not come to an end with refreshing it".to_owned()))
    }

    async fn header_of(&self, principal: &PrincipalRef, found: &Found) -> Result<HeaderValue, Missing> {
        let key = TokenKey::User { principal: principal.to_string(), version: found.version() };
        let got = self.tokens.get(key.clone(), || async {
            self.fetch(principal, found, &key).await.map_err(|missing| match missing {
                Missing::Failed(cause) => cause,
                Missing::Overtaken => UpstreamError::Token(OVERTAKEN.to_owned()),
            })
        });
        match got.await {
            Ok(header) => Ok(header),
            // Also of a fetch that this one waited for.
            Err(UpstreamError::Token(why)) if why == OVERTAKEN => Err(Missing::Overtaken),
            Err(cause) => Err(Missing::Failed(cause)),
        }
    }

    /// The upstream refused it: it is refreshed before the next request.
    pub(super) fn refused(&self, principal: &PrincipalRef, header: &HeaderValue) {
        let Some(found) = self.found(principal) else { return };
        let key = TokenKey::User { principal: principal.to_string(), version: found.version() };
        if self.tokens.forget(&key, header) {
            let mut refused = self.refused.lock();
            if refused.len() >= MAX_REFUSED {
                refused.clear();
            }
            refused.insert(key);
        }
    }

    async fn fetch(&self, principal: &PrincipalRef, found: &Found, key: &TokenKey) -> Result<Fetched, Missing> {
        let failed = Missing::Failed;
        let unopened = || UpstreamError::Token("what was kept of the consent cannot be opened".to_owned());
        let tokens = self.connections.open(found).ok_or_else(|| failed(unopened()))?;
        let left = tokens.ends_s.map(|ends| ends.saturating_sub(now_s()));
        let is_good = left.is_none_or(|left| left > MARGIN_S);
        if is_good && !self.refused.lock().contains(key) {
            return Fetched::new(tokens.access.expose_secret(), left, Instant::now()).map_err(failed);
        }
        let Some(refresh) = tokens.refresh else { return Err(self.end(principal, found).await) };
        match self.keep(principal, Keep::Claimed(found.version())).await {
            Ok(true) => {}
            Ok(false) => return Err(Missing::Overtaken),
            Err(cause) => return Err(failed(cause)),
        }
        let answer = match self.core.in_time(self.ask(&refresh)).await {
            Ok(answer) => answer,
            Err(UpstreamError::Grant(why)) => {
                tracing::info!(plugin = %self.plugin, %principal, why, "a user's consent was taken back");
                return Err(self.end(principal, found).await);
            }
            Err(cause) => {
                let released = self.keep(principal, Keep::Released(found.version())).await;
                tracing::debug!(plugin = %self.plugin, ?released, "a refresh failed");
                return Err(failed(cause));
            }
        };
        let fetched = Fetched::new(&answer.access_token, answer.expires_in, Instant::now()).map_err(failed)?;
        let scope = answer.scope.clone().unwrap_or_default();
        let next = tokens_of(answer, Some(refresh)).to_text();
        self.keep_refreshed(principal, Keep::Refreshed { version: found.version(), scope, tokens: next }).await;
        self.refused.lock().remove(key);
        Ok(fetched)
    }

    /// What was got is good here in any case; where it is not kept, the next refresh may ask the user again.
    async fn keep_refreshed(&self, principal: &PrincipalRef, keep: Keep) {
        for round in 0..MAX_KEEPS {
            if round > 0 {
                tokio::time::sleep(KEEP_PAUSE).await;
            }
            match self.keep(principal, keep.clone()).await {
                Ok(_) => return,
                Err(cause) => tracing::warn!(plugin = %self.plugin, %cause, "refreshed tokens are not kept yet"),
            }
        }
    }

    async fn end(&self, principal: &PrincipalRef, found: &Found) -> Missing {
        if let Err(cause) =
            self.keep(principal, Keep::Ended { version: found.version(), note: TAKEN_BACK.to_owned() }).await
        {
            tracing::warn!(plugin = %self.plugin, %cause, "a consent that is over is still kept");
        }
        Missing::Failed(UpstreamError::Consent)
    }

    async fn keep(&self, principal: &PrincipalRef, keep: Keep) -> Result<bool, UpstreamError> {
        let kept = self.connections.keep(principal, &self.plugin, keep).await;
        kept.map_err(|cause| UpstreamError::Token(format!("the control plane does not keep it: {cause}")))
    }

    async fn ask(&self, refresh: &SecretString) -> Result<TokenAnswer, UpstreamError> {
        let mut form = Form::default();
        form.add("grant_type", "refresh_token");
        form.add("refresh_token", refresh.expose_secret());
        self.core.add_target(&mut form, true);
        let place = self.core.place().await?;
        let redactor = self.core.redactor.and(refresh.expose_secret());
        let answer = client::ask(&self.core.http, &place, &self.core.identity, form, &redactor).await?;
        bearer(answer)
    }
}

fn bearer(answer: TokenAnswer) -> Result<TokenAnswer, UpstreamError> {
    if answer.token_type.eq_ignore_ascii_case("bearer") {
        return Ok(answer);
    }
    Err(UpstreamError::Token("the token that it gave is no bearer token".to_owned()))
}

/// A server that gives no new refresh token leaves the one that was used.
fn tokens_of(answer: TokenAnswer, before: Option<SecretString>) -> UserTokens {
    UserTokens {
        access: SecretString::from(answer.access_token),
        refresh: answer.refresh_token.map(SecretString::from).or(before),
        ends_s: answer.expires_in.map(|left| now_s().saturating_add(left)),
    }
}

/// What tokens are of, in a form that is compared: tokens for one are not used for another.
pub(super) fn authority_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}
