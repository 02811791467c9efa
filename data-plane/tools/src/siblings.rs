//! Other nodes that run the same plugins.
//!
//! Purpose: what is in one process only (a child process, a call that waits for its client, a legacy
//! session that may be asked) is used from every node. The port says what a plugin needs of them.
//! Invariants: a sibling executes and nothing else; whoever took the client's call has decided, limited
//! and recorded it. A sibling never passes on what was passed to it.

use std::sync::Arc;

use provost_data_pipeline::{ClientLink, Execution};
use provost_types::{BoxFuture, Name};

use crate::{Definitions, ExecuteRequest, ListenFilter, ServerFacts, UpstreamError, upstream::ListKind};

/// A plugin as all nodes name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginId {
    /// The tenant.
    pub tenant: Name,
    /// The name.
    pub name: Name,
    /// SHA-256 of its spec: another spec is another plugin.
    pub digest: Arc<str>,
}

/// Where a sibling is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The node of this name.
    Node(String),
    /// The process of this tag, as it stands in the state of a parked call.
    Process(String),
}

/// Why a sibling gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiblingError {
    /// It was not reached, or took nothing: nothing was done.
    #[error("the other data-plane node is not reached: {0}")]
    NotReached(String),
    /// It took the request and went: what was done is not known.
    #[error("the other data-plane node went away: {0}")]
    Lost(String),
}

/// A legacy session with an upstream, as another node can take it up.
#[derive(Clone, Debug)]
pub struct SharedSession {
    /// The upstream's id.
    pub id: String,
    /// What it said of itself when the session was opened.
    pub facts: ServerFacts,
    /// At which of the plugin's endpoints it lives, in the order of its document.
    pub endpoint: usize,
}

/// Whose session: of a caller, with what it declares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionOwner {
    /// The caller's session, or the principal.
    pub caller: String,
    /// The capabilities, as JSON.
    pub capabilities: String,
}

/// The nodes of the cluster that serve calls, without this one.
pub trait Siblings: Send + Sync {
    /// This process.
    fn tag(&self) -> String;

    /// The node where what `key` names lives; `None`: here. All nodes with the same view of who lives
    /// say the same.
    fn owner(&self, key: &str) -> Option<String>;

    /// Runs an operation there.
    fn execute<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, SiblingError>>;

    /// Hears there what the plugin says between calls, until the link is cancelled or it ends.
    fn listen<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        filter: &'a ListenFilter,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<(), SiblingError>>;

    /// A list of the plugin as it is there.
    fn list<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        kind: ListKind,
    ) -> BoxFuture<'a, Result<Result<Definitions, UpstreamError>, SiblingError>>;

    /// What the upstream says of itself there.
    fn facts<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
    ) -> BoxFuture<'a, Result<Result<ServerFacts, UpstreamError>, SiblingError>>;

    /// The upstream session of an owner, opened there if there is none. `gone`: this one is not good any
    /// more. `None`: the upstream gives its sessions no ids, and so keeps nothing in them.
    fn session<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
        gone: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<SharedSession>, SiblingError>>;

    /// The upstream session of an owner, if any node that lives knows one.
    fn known_session<'a>(
        &'a self,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
    ) -> BoxFuture<'a, Option<SharedSession>>;

    /// Lets every node know of a session, so that it outlives this one.
    fn share_session<'a>(
        &'a self,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
        session: &'a SharedSession,
    ) -> BoxFuture<'a, ()>;
}

/// An upstream's place among the nodes.
#[derive(Clone)]
pub(crate) struct Kin {
    pub(crate) plugin: PluginId,
    pub(crate) nodes: Arc<dyn Siblings>,
    /// One process for all nodes.
    pub(crate) is_single: bool,
}

impl Kin {
    /// What all nodes call the place of a caller's things; of everybody's in one process.
    pub(crate) fn key(&self, caller: &str) -> String {
        let caller = if self.is_single { "" } else { caller };
        format!("{}\0{}\0{caller}", self.plugin.tenant, self.plugin.name)
    }

    /// The node that has them; `None`: this one.
    pub(crate) fn owner(&self, caller: &str) -> Option<At> {
        self.nodes.owner(&self.key(caller)).map(At::Node)
    }
}
