//! What a group is told when it is opened.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use crate::GroupError;

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
}

impl GroupConfig {
    /// A configuration with default timings and retention.
    pub fn new(node_id: u64, cluster: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            node_id,
            cluster: cluster.into(),
            name: name.into(),
            address: String::new(),
            timings: Timings::default(),
            retention: Retention::default(),
        }
    }
}

/// Raft's clocks, in milliseconds. The defaults suit one region and slow disks; openraft's own
/// defaults (50 ms heartbeats) elect needlessly when a disk or a CPU stalls.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// Shortest silence before an election.
    pub election_min_ms: u64,
    /// Longest silence before an election.
    pub election_max_ms: u64,
    /// For sending and installing one snapshot chunk.
    pub install_snapshot_ms: u64,
    /// A leader that lost its quorum probes for it this often; at least twice `election_max_ms`.
    pub quorum_loss_probe_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 200,
            election_min_ms: 1_000,
            election_max_ms: 2_000,
            install_snapshot_ms: 60_000,
            quorum_loss_probe_ms: 4_000,
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
}

impl Default for Retention {
    fn default() -> Self {
        Self { snapshot_every_entries: 10_000, keep_entries: 20_000 }
    }
}

/// Entries sent to a follower in one message.
const MAX_ENTRIES_PER_RPC: u64 = 1_000;
/// Entries removed from the log in one batch.
const PURGE_BATCH_ENTRIES: u64 = 1_000;

pub(crate) fn raft_config(config: &GroupConfig) -> Result<Arc<Config>, GroupError> {
    let GroupConfig { timings, retention, .. } = config;
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
