//! Where requests of the data plane may go, and the one client that they go with.
//!
//! Purpose: upstreams, token endpoints, discovery documents and key sets are fetched with an [`EgressClient`];
//! its rule says which URLs and addresses it reaches. Messages to upstreams on this machine go over a line of it (`line`).
//! Invariants: a URL is checked before it is used, literals included; a name is resolved once for a
//! connection and refused if any of its addresses is; only the checked addresses are connected to, so a
//! second answer of the name server changes nothing; redirects are not followed and proxy variables are not
//! read; answers are taken as they are, since nothing here decompresses.
//! Left out: what operators configure for the process itself (log forwarding, witnesses, a key store), and
//! what a child process connects to.

mod address;
mod client;
mod line;
mod rule;
mod tls;

pub use client::{EgressBody, EgressClient, Lookup};
pub(crate) use line::{Line, LineBody, LineFault};
pub use rule::EgressRule;
use url::Url;

/// Why an address is not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressRefused(pub(crate) String);

/// Why no client can be made: the machine's certificates or TLS are unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests cannot be sent: {0}")]
pub struct ClientUnmade(String);

/// A URL that a rule lets through. Its name is still to be resolved, and checked then.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedUrl(Url);

impl CheckedUrl {
    /// The URL.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The same place with another path, and no query.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        let mut url = self.0.clone();
        url.set_path(path);
        url.set_query(None);
        Self(url)
    }

    /// The same place with this query, percent-encoded already.
    #[must_use]
    pub(crate) fn with_query(&self, query: Option<&str>) -> Self {
        let mut url = self.0.clone();
        url.set_query(query);
        Self(url)
    }

    /// Adds a query parameter, which changes nothing of where it leads.
    pub(crate) fn add_query(&mut self, key: &str, value: &str) {
        self.0.query_pairs_mut().append_pair(key, value);
    }
}

impl std::fmt::Debug for CheckedUrl {
    /// Without the query, which may carry a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.0.origin().ascii_serialization(), self.0.path())
    }
}
