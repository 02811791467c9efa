//! Where a user lets a plugin act in their name, in a browser.
//!
//! Purpose: a call of a plugin with `auth.perUser` names an address here. The page behind it has the user prove who
//! they are, sends them to the plugin's authorization server, and takes what comes back.
//! Invariants:
//! - Who opens the address proves to be the principal whose call named it, by a credential that would authenticate
//!   their calls: else somebody could have another consent for them, and act with that one's rights.
//! - The flow stays in the browser in which that was proved: what it needs lies in a cookie, sealed, and the `state`
//!   that travels through the authorization server opens it.
//! - An answer counts once, in time, for the plugin and the server that were asked, and only if nothing newer came.
//! - Nothing of it is kept on a node: each step may come to another one.
//!
//! - Who lets a plugin act in their name takes that back by the same credential, and nobody else does for them.
//!
//! Left out: tokens (`provost-data-tools`); sign-in by an identity provider's own pages.

mod callback;
mod own;
mod page;
mod start;
mod ticket;

use provost_data_tools::{AuthorityTold, OwnConnection};
use provost_types::{BoxFuture, Name, PrincipalRef};
pub(crate) use start::MAX_FORM_BYTES;
pub(crate) use ticket::{Flow, Ticket, Tickets};

/// The first page.
pub(crate) const START: &str = "/connect";
/// Where principals see what they let plugins do in their names, and end it.
pub(crate) const OWN: &str = "/connections";
/// Where authorization servers send users back to, followed by `TENANT/PLUGIN`: a server of one plugin cannot pass
/// off an answer as another's.
pub(crate) const CALLBACK: &str = "/connect/callback/";

/// The redirect URI of a plugin, as it is registered at its authorization server.
pub(crate) fn redirect_uri(base: &str, tenant: &Name, plugin: &Name) -> String {
    format!("{base}{CALLBACK}{tenant}/{plugin}")
}

/// Why it did not work: a code and a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ConsentFailed {
    /// The stable code.
    pub code: &'static str,
    /// What happened, and what to do.
    pub message: String,
}

impl ConsentFailed {
    /// With this code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What comes back from an authorization server.
#[derive(Clone, Copy, Debug)]
pub struct Consented<'a> {
    /// Who consented, as it was proved when the flow began.
    pub principal: &'a PrincipalRef,
    /// To which plugin.
    pub plugin: &'a Name,
    /// The code.
    pub code: &'a str,
    /// The PKCE verifier of the flow.
    pub verifier: &'a str,
    /// Its redirect URI.
    pub redirect: &'a str,
    /// When it began, nanoseconds since the Unix epoch.
    pub began_ns: u64,
}

/// The plugins that act in their users' names.
pub trait Consents: Send + Sync {
    /// When the flow began that led to what the principal consented to; 0: never. `None`: there is no such plugin.
    fn began_ns(&self, principal: &PrincipalRef, plugin: &Name) -> Option<u64>;

    /// Where to send the user, and the authorization server as it must name itself later.
    fn authorization_url<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        redirect: &'a str,
        proof: (&'a str, &'a str),
    ) -> BoxFuture<'a, Result<(String, Option<String>), ConsentFailed>>;

    /// Whether the answer came from the server that was asked.
    fn check_issuer<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        asked: Option<&'a str>,
        said: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ConsentFailed>>;

    /// Takes what the user consented to.
    fn finish<'a>(&'a self, consented: Consented<'a>) -> BoxFuture<'a, Result<(), ConsentFailed>>;

    /// What a principal lets plugins do in their name, in order of plugin.
    fn own(&self, principal: &PrincipalRef) -> Vec<OwnConnection>;

    /// Ends the one of the flow that began then; what the authorization server made of it. `None`: there is no such
    /// connection any more.
    fn end<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        began_ns: u64,
    ) -> BoxFuture<'a, Result<Option<AuthorityTold>, ConsentFailed>>;
}
