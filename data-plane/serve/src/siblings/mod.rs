//! The other data-plane nodes: what is needed of them so that each serves every client.
//!
//! Purpose: most of what a client carries is sealed and good anywhere. What is not (a stream that can be
//! taken up again, a question that waits for its answer, a call that waits for its client, a process of
//! a stdio plugin) is in one process, whose tag or name is found, and is asked of it there.
//! Invariants: siblings are members of the cluster with the role data-plane, over mutual TLS; nothing
//! here admits a call: whoever took the client's request authenticated, decided and records; a sibling
//! that does not answer costs a bounded wait. Two nodes may for seconds have different views of who
//! lives, and then both be owners of the same thing: each serves its own clients with it.
//! Left out: who the members are, and how they are reached (whoever composes the node says so).

mod convert;
mod hosting;
mod owners;
mod plugins;
mod seeking;
mod service;
mod sibling;
mod tag;
mod telling;
mod unheard;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::future::join_all;
use provost_data_tools::Toolbox;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;

use crate::mcp::SessionDesk;
use seeking::Seeking;
pub use service::{SiblingCallers, SiblingService, SiblingSlot};
pub(crate) use sibling::Sibling;
pub(crate) use tag::Tag;
pub(crate) use telling::Told;
use unheard::Unheard;

/// Between two greetings of every sibling.
const GREET_EVERY: Duration = Duration::from_secs(1);

/// A member that serves calls, and the way to it.
pub struct SiblingAddress {
    /// Its name in the cluster.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
    /// Connects by itself, and insists on that node.
    pub channel: Channel,
}

/// See the module.
pub struct Siblings {
    /// This node's name.
    own: String,
    tag: Tag,
    nodes: ArcSwap<Vec<Arc<Sibling>>>,
    /// Cancelled when this node begins nothing new.
    draining: OnceLock<CancellationToken>,
    /// Greetings because of unknown tags.
    seeking: Seeking,
    /// Ends of sessions that others have still to hear of.
    unheard: Unheard,
    /// What is known here of legacy sessions.
    desk: OnceLock<SessionDesk>,
    /// The plugins here.
    toolbox: OnceLock<Arc<Toolbox>>,
    /// Calls that other nodes took.
    hosting: TaskTracker,
}

impl std::fmt::Debug for Siblings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Siblings").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Siblings {
    /// A node that knows no other.
    pub fn new(own: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            own: own.into(),
            tag: Tag::random(),
            nodes: ArcSwap::default(),
            draining: OnceLock::new(),
            seeking: Seeking::default(),
            unheard: Unheard::default(),
            desk: OnceLock::new(),
            toolbox: OnceLock::new(),
            hosting: TaskTracker::new(),
        })
    }

    /// Replaces the others. Those that stay keep what is known of them.
    pub fn set(&self, members: Vec<SiblingAddress>) {
        let known = self.nodes.load();
        let others = members.into_iter().filter(|member| member.name != self.own);
        let nodes = others.map(|member| {
            let same = known.iter().find(|s| s.is_at(&member.name, &member.address));
            same.cloned().unwrap_or_else(|| Arc::new(Sibling::new(member.name, member.address, member.channel)))
        });
        self.nodes.store(Arc::new(nodes.collect()));
        let members = self.nodes.load();
        self.unheard.keep(|name| members.iter().any(|node| node.name() == name));
    }

    /// Keeps looking who lives. Has no end of its own.
    pub async fn watch(self: Arc<Self>) {
        loop {
            self.greet_all().await;
            self.tell_what_was_missed().await;
            tokio::time::sleep(GREET_EVERY).await;
        }
    }

    async fn greet_all(&self) {
        let nodes = self.nodes.load_full();
        join_all(nodes.iter().map(|node| node.greet())).await;
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// Gives the front end's part of what siblings ask for.
    pub(crate) fn attach(&self, desk: SessionDesk, draining: CancellationToken) {
        // A second front end of the same process would be a mistake of whoever composes it: the first stays.
        let _ = self.desk.set(desk);
        let _ = self.draining.set(draining);
    }

    /// Gives the plugins that siblings use.
    pub fn attach_toolbox(&self, toolbox: Arc<Toolbox>) {
        let _ = self.toolbox.set(toolbox);
    }

    /// Waits until no call runs here for another node. New ones may still come.
    pub(crate) async fn hosted_calls_end(&self) {
        self.hosting.close();
        self.hosting.wait().await;
    }

    /// What plugins have for a client's session ends; `tells`: upstreams are told, too.
    pub(crate) fn end_upstream_sessions(&self, session: &str, tells: bool) {
        if let Some(toolbox) = self.toolbox.get() {
            toolbox.end_session(session, tells);
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.get().is_some_and(CancellationToken::is_cancelled)
    }

    fn alive(&self) -> Vec<Arc<Sibling>> {
        self.nodes.load().iter().filter(|node| node.is_alive()).cloned().collect()
    }

    /// The node where a process runs; a process that is not known may have begun a moment ago, and is looked for
    /// within the bound of [`Seeking`].
    pub(crate) async fn find(&self, tag: Tag) -> Option<Arc<Sibling>> {
        let by_tag = || self.nodes.load().iter().find(|node| node.tag() == Some(tag)).cloned();
        if tag == self.tag {
            return None;
        }
        match by_tag() {
            Some(found) => Some(found),
            None => {
                self.seeking.round(|| self.greet_all()).await;
                by_tag()
            }
        }
    }
}
