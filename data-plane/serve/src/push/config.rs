//! What a client is told when it starts.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use provost_wire::node::PluginsStanding;

use super::StalenessLimits;

/// Notes of the last confirmation within one maximum age of grants: after a crash a state counts as
/// older than it is by at most this share of it.
const STAMPS_AN_AGE: u32 = 10;
/// Two notes are at least this far apart: each costs an fsync.
const MIN_STAMP: Duration = Duration::from_secs(1);

/// What the node has done since it started; only differences are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthCounts {
    /// Calls that ended.
    pub calls: u64,
    /// Calls that were denied.
    pub denials: u64,
    /// Calls that failed.
    pub errors: u64,
}

/// Who the node is and where it keeps its last good state.
#[derive(Clone)]
pub struct PushConfig {
    /// The node's name, as in its certificate.
    pub node: String,
    /// The cluster's identity: a stored state of another cluster is not run.
    pub cluster: String,
    /// Grows with each start of the node: the control plane serves the latest start only.
    pub epoch: u64,
    /// The node group; empty: none.
    pub group: String,
    /// The build, for people.
    pub version: String,
    /// The folder of the last good state; `None`: nothing is kept, and a start needs a control plane.
    pub store: Option<PathBuf>,
    /// From which age of its state the node denies what needs a grant; `None`: never. The age on disk
    /// is noted the more often the shorter this is.
    pub grants_max_age: Option<Duration>,
    /// What the node has done since it started.
    pub counts: Arc<dyn Fn() -> HealthCounts + Send + Sync>,
    /// How far the node is with its plugins; `None`: it does not say.
    pub plugins: Option<PluginsReader>,
    pub(crate) timings: Timings,
}

/// Reads how far the node is with its plugins. Called a few times a second.
pub type PluginsReader = Arc<dyn Fn() -> PluginsStanding + Send + Sync>;

impl PushConfig {
    /// A node without group that reports no counts and keeps nothing.
    pub fn new(node: impl Into<String>, cluster: impl Into<String>, epoch: u64) -> Self {
        Self {
            node: node.into(),
            cluster: cluster.into(),
            epoch,
            group: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: None,
            grants_max_age: StalenessLimits::default().grants_max_age,
            counts: Arc::new(HealthCounts::default),
            plugins: None,
            timings: Timings::default(),
        }
    }
}

impl PushConfig {
    /// Between two notes of when the state was last confirmed.
    pub(crate) fn stamp_every(&self) -> Duration {
        let most = self.timings.stamp;
        self.grants_max_age.map_or(most, |max| most.min((max / STAMPS_AN_AGE).max(MIN_STAMP)))
    }
}

impl fmt::Debug for PushConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConfig")
            .field("node", &self.node)
            .field("cluster", &self.cluster)
            .field("epoch", &self.epoch)
            .field("group", &self.group)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Constants, but for tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timings {
    /// The longest wait for a connection.
    pub(crate) dial: Duration,
    /// Without any message for this long the stream counts as dead; bookmarks come each second.
    pub(crate) silence: Duration,
    /// A control-plane node that is behind this node for this long is left, if there is another.
    pub(crate) behind: Duration,
    /// The first and the longest wait before a new try; the wait doubles in between.
    pub(crate) backoff: (Duration, Duration),
    /// After a state that cannot be read: each new try costs a whole state.
    pub(crate) unreadable: Duration,
    /// Between two reports of counts. The control plane ends a stream after 30 s of silence.
    pub(crate) health: Duration,
    /// Between two looks at how far the plugins are: who installs one waits for what is told of it.
    pub(crate) plugins: Duration,
    /// Between two writes of the last good state: it is never further behind than this and one write.
    pub(crate) save_gap: Duration,
    /// Before a failed write is tried again.
    pub(crate) save_retry: Duration,
    /// The longest time between two notes of when the state was last confirmed.
    pub(crate) stamp: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            behind: Duration::from_secs(5),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            unreadable: Duration::from_secs(30),
            health: Duration::from_secs(5),
            plugins: Duration::from_millis(500),
            save_gap: Duration::from_millis(500),
            save_retry: Duration::from_secs(10),
            stamp: Duration::from_secs(60),
        }
    }
}
