//! What the audit log is told when it is opened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::subject_file::SubjectPaths;

/// Where the log lives and how it behaves.
#[derive(Clone, Debug)]
pub struct AuditLogConfig {
    /// The logs, their checkpoints and public keys: what an auditor copies.
    pub audit_dir: PathBuf,
    /// The audit group's Raft log.
    pub raft_dir: PathBuf,
    /// The private checkpoint key (PKCS#8); made, readable by its owner only, when absent.
    pub key_file: PathBuf,
    /// The keys of bodies; never in the directory that auditors copy.
    pub subject_keys: SubjectPaths,
    /// Whether this node may make the log key of a cluster that has none: true for the node that
    /// begins the audit group, false for those that join it and adopt the keys of another.
    pub begins_keys: bool,
    /// This node's name: the `writer_id` of its records.
    pub node_name: String,
    /// This node's Raft id: unique in the cluster and never reused.
    pub node_id: u64,
    /// The cluster's name: the first part of every log's origin.
    pub cluster: String,
    /// How often a checkpoint is signed while records come in. Shorter: less is unsigned at any
    /// moment; longer: fewer fsyncs.
    pub checkpoint_interval: Duration,
    /// A caller waits this long for its record to become durable before it is refused.
    pub deadline: Duration,
}

impl AuditLogConfig {
    /// Everything below one data directory, default times, node 1 of cluster `provost`.
    pub fn new(data_dir: &Path, node_name: impl Into<String>) -> Self {
        Self {
            audit_dir: data_dir.join("audit"),
            raft_dir: data_dir.join("audit-raft"),
            key_file: data_dir.join("keys").join("audit-checkpoint.key"),
            subject_keys: SubjectPaths::below(data_dir),
            begins_keys: true,
            node_name: node_name.into(),
            node_id: 1,
            cluster: "provost".to_owned(),
            checkpoint_interval: Duration::from_secs(1),
            deadline: Duration::from_secs(5),
        }
    }
}
