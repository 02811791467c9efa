//! How a user lets a plugin act in their name (RFC 6749, 4.1, with PKCE).

use std::time::Duration;

use provost_types::PrincipalRef;

use crate::{
    UpstreamError,
    connections::Found,
    oauth::{AuthorityTold, Authorizer},
};

/// The plugin's side of it: what the browser is told, and what comes back from it. Who the user is, and that it is
/// the same from beginning to end, is for the caller to see to.
pub struct Consent<'a>(&'a Authorizer);

impl<'a> Consent<'a> {
    pub(crate) fn new(auth: &'a Authorizer) -> Self {
        Self(auth)
    }

    /// Whether the principal has consented; waits a while for it.
    pub async fn is_given(&self, principal: &PrincipalRef, wait: Duration) -> bool {
        self.0.is_connected(principal, wait).await
    }

    /// When the flow began that led to what the principal consented to, nanoseconds since the Unix epoch; 0: never.
    pub fn began_ns(&self, principal: &PrincipalRef) -> u64 {
        self.0.began_ns(principal)
    }

    /// Where to send the user, and the authorization server as it must name itself later.
    pub async fn authorization_url(
        &self,
        redirect: &str,
        state: &str,
        challenge: &str,
    ) -> Result<(String, Option<String>), UpstreamError> {
        self.0.authorization_url(redirect, state, challenge).await
    }

    /// Whether the answer came from the server that was asked (RFC 9207). Before anything of it is used.
    pub async fn check_issuer(&self, asked: Option<&str>, said: Option<&str>) -> Result<(), UpstreamError> {
        self.0.check_issuer(asked, said).await
    }

    /// Exchanges the code and keeps what it gives; `false`: a later consent came first. `proof`: the PKCE verifier
    /// and the redirect URI of the flow.
    pub async fn given(
        &self,
        principal: &PrincipalRef,
        code: &str,
        proof: (&str, &str),
        began_ns: u64,
    ) -> Result<bool, UpstreamError> {
        self.0.consented(principal, code, proof, began_ns).await
    }

    /// Ends what the principal consented to in the flow that began then, and has the authorization server take its
    /// tokens back where it can. `None`: there is no such connection any more.
    pub async fn end(&self, principal: &PrincipalRef, began_ns: u64) -> Result<Option<AuthorityTold>, UpstreamError> {
        self.0.disconnect(principal, began_ns).await
    }

    /// Has the authorization server take back what is gone here already.
    pub(crate) async fn tell_of_end(&self, found: &Found) -> Option<AuthorityTold> {
        self.0.tell_of_end(found).await
    }
}
