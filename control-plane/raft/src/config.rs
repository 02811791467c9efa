//! What a group is told when it is opened.

use std::{sync::Arc, time::Duration};

use openraft::{Config, SnapshotPolicy};

use crate::{GroupError, MAX_INFLIGHT_PROPOSALS, MAX_PROPOSAL_BYTES};

/// Who this node is and how its group behaves.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// This node's id; unique in the cluster and never reused.
    pub node_id: u64,
    /// The cluster's name; a store of another cluster is refused.
    pub cluster: String,
    /// The group's name, such as `control` or `audit`; a store of another group is refused.
    pub name: String,
    /// Where peers reach this node; empty for a group of one.
    pub address: String,
    /// Heartbeats and elections.
    pub timings: Timings,
    /// How much log is kept.
    pub retention: Retention,
    /// How long callers wait for a leader and for a commit.
    pub forwarding: Forwarding,
    /// How much work is taken at once.
    pub admission: Admission,
    /// Who may be a voter, and when.
    pub membership: MembershipPolicy,
    /// Whether this node has run before, as something other than its log knows (its certificate,
    /// its configuration). An empty store is then refused: a voter that forgot its votes and
    /// entries would let a quorum lose what it acknowledged.
    pub expect_existing: bool,
}

impl GroupConfig {
    /// A configuration with default timings, retention and bounds.
    pub fn new(node_id: u64, cluster: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            node_id,
            cluster: cluster.into(),
            name: name.into(),
            address: String::new(),
            timings: Timings::default(),
            retention: Retention::default(),
            forwarding: Forwarding::default(),
            admission: Admission::default(),
            membership: MembershipPolicy::default(),
            expect_existing: false,
        }
    }
}

/// How long a caller of [`crate::Group::propose`] or [`crate::Group::read_barrier`] waits.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding {
    /// For a leader that takes the call. Nothing has been logged when this ends.
    pub leader_wait_ms: u64,
    /// For the commit and the local apply once a leader took the command. When this ends the
    /// command's fate is unknown.
    pub commit_wait_ms: u64,
    /// Whether commands that replicas forward share batches on the leader. Not where each is a batch of its caller's
    /// already: a batch is a task, a channel and their wake-ups more.
    pub gathers: bool,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { leader_wait_ms: 5_000, commit_wait_ms: 8_000, gathers: true }
    }
}

impl Forwarding {
    pub(crate) fn leader_wait(&self) -> Duration {
        Duration::from_millis(self.leader_wait_ms)
    }
    pub(crate) fn commit_wait(&self) -> Duration {
        Duration::from_millis(self.commit_wait_ms)
    }
}

/// How much work a replica takes at once; more is made to wait, then refused.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// Proposals in flight.
    pub max_proposals: usize,
    /// Bytes of the proposals in flight.
    pub max_bytes: usize,
    /// Committed entries that may wait for the state machine.
    pub max_apply_lag: u64,
    /// How long a proposal waits for a place before it is refused.
    pub wait_ms: u64,
}

impl Default for Admission {
    fn default() -> Self {
        Self { max_proposals: MAX_INFLIGHT_PROPOSALS, max_bytes: 64 << 20, max_apply_lag: 10_000, wait_ms: 2_000 }
    }
}

/// Who may be a voter, and when.
#[derive(Clone, Copy, Debug)]
pub struct MembershipPolicy {
    /// Voters that must remain after a removal.
    pub min_voters: usize,
    /// Makes learners voters by themselves; `None`: only on request.
    pub promotion: Option<Promotion>,
    /// How long one change may take to commit. When this ends its fate is unknown.
    pub change_wait_ms: u64,
}

impl Default for MembershipPolicy {
    fn default() -> Self {
        Self { min_voters: 1, promotion: None, change_wait_ms: 10_000 }
    }
}

/// When a learner becomes a voter by itself.
#[derive(Clone, Copy, Debug)]
pub struct Promotion {
    /// Entries that it may be behind the leader.
    pub max_lag: u64,
    /// How long it must have been no further behind, and answering.
    pub stable_ms: u64,
}

impl Default for Promotion {
    fn default() -> Self {
        Self { max_lag: 250, stable_ms: 10_000 }
    }
}

/// Raft's clocks, in milliseconds. The defaults suit one region and slow disks; openraft's own
/// defaults (50 ms heartbeats) elect needlessly when a disk or a CPU stalls.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing waits for the leader's lease (`election_max_ms`) and then for a
    /// time between `election_min_ms` and `election_max_ms` before it asks for an election. One that saw
    /// the leader's connection end waits for the lease alone.
    pub election_min_ms: u64,
    /// See `election_min_ms`.
    pub election_max_ms: u64,
    /// For sending and installing one snapshot chunk.
    pub install_snapshot_ms: u64,
    /// A leader that lost its quorum probes for it this often; at least twice `election_max_ms`.
    pub quorum_loss_probe_ms: u64,
    /// The word that entries are committed waits so long for further entries, which carry it to the followers without a
    /// message of its own; 0: it is sent at once. Commits do not wait for it, only what followers apply.
    pub commit_notice_ms: u64,
    /// Entries go at once to as many followers as make a quorum with the leader, those that answer fastest; to the others
    /// they go at least this long one message after another, several in one; 0: to all at once. A commit waits so long for
    /// another follower where one that was fast does not answer.
    pub spare_wait_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 150,
            election_min_ms: 500,
            election_max_ms: 1_000,
            install_snapshot_ms: 60_000,
            quorum_loss_probe_ms: 4_000,
            commit_notice_ms: 0,
            spare_wait_ms: 0,
        }
    }
}

/// How much log a group keeps.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// A snapshot is taken each time that the log has grown by this many entries.
    pub snapshot_every_entries: u64,
    /// Entries kept behind a snapshot, so that a follower a little behind needs no snapshot, and
    /// so that purging stays far from what a slow machine still applies.
    pub keep_entries: u64,
    /// Bytes of entries, whatever their number. Above it a snapshot is taken, and the log before it
    /// is purged until half of this is left: few large entries must not fill a disk.
    pub max_bytes: u64,
}

/// Bytes of a log, if its configuration names no other bound.
pub const MAX_LOG_BYTES: u64 = 256 << 20;

impl Default for Retention {
    fn default() -> Self {
        Self { snapshot_every_entries: 10_000, keep_entries: 20_000, max_bytes: MAX_LOG_BYTES }
    }
}

/// Entries sent to a follower in one message.
const MAX_ENTRIES_PER_RPC: u64 = 1_000;
/// Entries removed from the log in one batch.
const PURGE_BATCH_ENTRIES: u64 = 1_000;

impl Timings {
    /// A peer that answered within this time counts as alive: two of the longest elections.
    pub(crate) fn live_window(&self) -> Duration {
        Duration::from_millis(self.election_max_ms * 2)
    }
    /// A peer that leaves entries unanswered for this long is tried again from the start. Longer
    /// than a heartbeat, because the answer waits for the peer's disk.
    pub(crate) fn append_limit(&self) -> Duration {
        Duration::from_millis(self.election_min_ms)
    }
}

pub(crate) fn raft_config(config: &GroupConfig) -> Result<Arc<Config>, GroupError> {
    let GroupConfig { timings, retention, admission, .. } = config;
    if admission.max_bytes < MAX_PROPOSAL_BYTES || admission.max_proposals == 0 {
        let text = format!("admission must have room for one proposal of {MAX_PROPOSAL_BYTES} bytes");
        return Err(GroupError::Config(text));
    }
    let raft = Config {
        cluster_name: format!("{}/{}", config.cluster, config.name),
        heartbeat_interval: timings.heartbeat_ms,
        election_timeout_min: timings.election_min_ms,
        election_timeout_max: timings.election_max_ms,
        install_snapshot_timeout: timings.install_snapshot_ms,
        quorum_loss_probe_interval: Some(timings.quorum_loss_probe_ms),
        max_payload_entries: MAX_ENTRIES_PER_RPC,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(retention.snapshot_every_entries),
        max_in_snapshot_log_to_keep: retention.keep_entries,
        // A follower further behind than what a snapshot leaves in the log cannot use the log.
        replication_lag_threshold: retention.snapshot_every_entries + retention.keep_entries,
        purge_batch_size: PURGE_BATCH_ENTRIES.min(retention.snapshot_every_entries.max(1)),
        enable_pre_vote: Some(true),
        // The machine does not fsync each apply: leadership after a restart comes by election,
        // which re-establishes the commit index first.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate().map(Arc::new).map_err(|e| GroupError::Config(e.to_string()))
}
