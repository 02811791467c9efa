//! What a replica is told at its start.

use std::{path::PathBuf, sync::Arc, time::Duration};

use provost_control_raft::{Promotion, Retention, Timings, Transport};

use crate::{catch_up::Replicas, subject_file::SubjectPaths};

/// Where a replica lives and how it reaches the others.
#[derive(Clone)]
pub struct AuditNodeConfig {
    /// The logs, their checkpoints and public keys: what an auditor copies.
    pub audit_dir: PathBuf,
    /// The audit group's Raft log.
    pub raft_dir: PathBuf,
    /// The checkpoint key's file, for messages.
    pub key_file: PathBuf,
    /// The keys of bodies; never in the directory that auditors copy.
    pub subject_keys: SubjectPaths,
    /// Whether this replica makes the log key at its first use: true in a group of one. In others
    /// the first node calls [`crate::begin_keys`] and the rest [`crate::adopt_keys`] before they open.
    pub begins_keys: bool,
    /// This node's Raft id: unique in the cluster and never reused.
    pub node_id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// How often a checkpoint is signed while records come in.
    pub checkpoint_interval: Duration,
    /// How the others are reached; `None`: a group of one that has no others.
    pub peers: Option<AuditPeers>,
}

/// What a replica with others is told.
#[derive(Clone)]
pub struct AuditPeers {
    /// Where others reach this one.
    pub address: String,
    /// Carries Raft's messages.
    pub transport: Arc<dyn Transport>,
    /// Raft's clocks.
    pub timings: Timings,
    /// How much log is kept; who is further behind takes a snapshot and the records from another.
    pub retention: Retention,
    /// How other replicas' services are reached.
    pub replicas: Replicas,
    /// When a learner becomes a voter by itself.
    pub promotion: Promotion,
    /// Whether this node had a log before: without it, it must not come back under its id.
    pub expect_existing: bool,
}
