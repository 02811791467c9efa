//! How a user takes a consent back: at the authorization server, as far as it lets us (RFC 7009), and here in any case.
//!
//! What an administrator ends is gone here before: one node then tells the server, and its log says what came of it.
//!
//! If we crash before the end is kept, the user sees no answer and asks again: what the server has taken back already
//! it takes back once more.

use std::{fmt, sync::Arc};

use provost_types::PrincipalRef;
use secrecy::{ExposeSecret, SecretString};

use super::{MAX_ROUNDS, OTHER_LIMIT, PerUser};
use crate::{
    UpstreamError,
    connections::{Found, Keep},
    oauth::{client, endpoint::Place},
};

/// What the authorization server made of it. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityTold {
    /// It took its tokens back.
    Revoked,
    /// Its metadata names no place for that, or the document names its endpoints itself.
    NotOffered,
    /// The tokens are of another server, or another client, than the plugin has now.
    OtherServer,
    /// It could not be told: why.
    Failed(String),
}

impl fmt::Display for AuthorityTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked => f.write_str("the authorization server took its tokens back"),
            Self::NotOffered => {
                f.write_str("the authorization server offers no revocation: its tokens end by themselves")
            }
            Self::OtherServer => f.write_str(
                "the plugin has another authorization server by now: the one that gave the tokens was not told",
            ),
            Self::Failed(why) => write!(f, "the authorization server could not be told: {why}"),
        }
    }
}

impl PerUser {
    /// Ends what a principal consented to in the flow that began then. `None`: there is no such connection any more.
    pub(in crate::oauth) async fn disconnect(
        self: &Arc<Self>,
        principal: &PrincipalRef,
        began_ns: u64,
    ) -> Result<Option<AuthorityTold>, UpstreamError> {
        let (me, whose) = (self.clone(), principal.clone());
        // A task of its own: who goes away in between leaves no half of it.
        let ending = tokio::spawn(async move { me.end_it(&whose, began_ns).await });
        ending.await.unwrap_or_else(|_| Err(UpstreamError::Token("ending it ended unexpectedly".to_owned())))
    }

    async fn end_it(&self, principal: &PrincipalRef, began_ns: u64) -> Result<Option<AuthorityTold>, UpstreamError> {
        for _ in 0..MAX_ROUNDS {
            let found = self.connections.find(principal, &self.plugin).filter(|found| found.began_ns() == began_ns);
            let Some(found) = found else { return Ok(None) };
            let version = found.version();
            // While this node has it no other one refreshes: a new refresh token would outlive the end of the old.
            if !self.keep(principal, Keep::Claimed(version)).await? {
                self.connections.changed(principal, &self.plugin, Some(version), OTHER_LIMIT).await;
                if self.connections.find(principal, &self.plugin).is_some_and(|now| now.version() != version) {
                    continue;
                }
                // Whoever claimed it is gone, or slow: that must not keep the user from ending it.
            }
            let told = self.tell_authority(&found).await;
            let note = format!("ended by the principal; {told}");
            if self.keep(principal, Keep::Ended { version, note }).await? {
                self.connections.changed(principal, &self.plugin, Some(version), OTHER_LIMIT).await;
                return Ok(Some(told));
            }
            self.connections.changed(principal, &self.plugin, Some(version), OTHER_LIMIT).await;
        }
        Err(UpstreamError::Token("another node changes it all the time".to_owned()))
    }

    /// Has the authorization server take the tokens of a connection back.
    pub(in crate::oauth) async fn tell_authority(&self, found: &Found) -> AuthorityTold {
        if found.authority() != self.core.authority() {
            return AuthorityTold::OtherServer;
        }
        let place = match self.core.in_time(self.core.place()).await {
            Ok(place) if place.revoke.is_none() => return AuthorityTold::NotOffered,
            Ok(place) => place,
            Err(cause) => return AuthorityTold::Failed(cause.to_string()),
        };
        let Some(tokens) = self.connections.open(found) else {
            return AuthorityTold::Failed("what was kept of the consent cannot be opened".to_owned());
        };
        // The one that gives others first. Servers need not know how to take an access token back.
        let first = match &tokens.refresh {
            Some(refresh) => {
                let first = self.revoke(&place, refresh, "refresh_token").await;
                if let Err(cause) = self.revoke(&place, &tokens.access, "access_token").await {
                    tracing::debug!(plugin = %self.plugin, %cause, "an access token was not taken back");
                }
                first
            }
            None => self.revoke(&place, &tokens.access, "access_token").await,
        };
        match first {
            Ok(()) => AuthorityTold::Revoked,
            Err(cause) => AuthorityTold::Failed(cause.to_string()),
        }
    }

    async fn revoke(&self, place: &Place, token: &SecretString, hint: &str) -> Result<(), UpstreamError> {
        let redactor = self.core.redactor.and(token.expose_secret());
        let token = token.expose_secret();
        self.core.in_time(client::revoke(&self.core.http, place, &self.core.identity, (token, hint), &redactor)).await
    }
}
