//! Replica and writer of a cluster of one process.

use std::{path::Path, sync::Arc, time::Duration};

use provost_audit_core::{LogId, VerifierKey};
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture, SubjectKeys};

use crate::{
    config::AuditLogConfig,
    erase::{EraseError, EraseOrder, Erased},
    error::AuditError,
    key::CheckpointKey,
    node::{AuditNode, AuditNodeConfig, AuditStatus},
    retention::Retention,
    writer::{AuditWriter, AuditWriterConfig},
};

/// How long a start waits for the audit group to elect and to apply what it holds.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A group of one and the writer of this process; clones share it.
#[derive(Clone)]
pub struct AuditLog {
    node: AuditNode,
    writer: AuditWriter,
    deadline: Duration,
}

/// Opens the audit log: reads or makes the key, opens the group (a group of one when the
/// directory is new), brings the files up to it, checks them against the checkpoint held in
/// consensus, starts a new epoch, and ends the calls that were running when the process ended.
///
/// Must be called within a tokio runtime.
pub async fn open(config: AuditLogConfig) -> Result<AuditLog, AuditError> {
    let key = CheckpointKey::open(&config.key_file)?;
    let node = AuditNodeConfig {
        audit_dir: config.audit_dir,
        raft_dir: config.raft_dir,
        key_file: config.key_file,
        subject_keys: config.subject_keys,
        begins_keys: config.begins_keys,
        node_id: config.node_id,
        cluster: config.cluster.clone(),
        checkpoint_interval: config.checkpoint_interval,
        peers: None,
    };
    let node = AuditNode::open(node, key).await?;
    node.initialize().await?;
    node.check(READY_TIMEOUT).await?;
    let deadline = config.deadline;
    let writer = AuditWriterConfig { cluster: config.cluster, writer: config.node_name, deadline };
    let writer = AuditWriter::start(writer, Arc::new(node.proposer()));
    writer.ready().await?;
    let finished = node.finish_erasures(&writer, Duration::ZERO).await;
    finished.map_err(|e| AuditError::Unavailable(e.0))?;
    node.note_tenants(Arc::new(writer.clone()));
    node.start_signing();
    Ok(AuditLog { node, writer, deadline })
}

impl AuditLog {
    /// The directory that an auditor copies, and that [`crate::query`] reads.
    pub fn dir(&self) -> &Path {
        self.node.dir()
    }

    /// The replica.
    pub fn node(&self) -> &AuditNode {
        &self.node
    }

    /// This start's epoch.
    pub fn epoch(&self) -> u64 {
        self.writer.epoch().unwrap_or_default()
    }

    /// Keys of bodies, for writers in this process.
    pub fn subject_keys(&self) -> Arc<dyn SubjectKeys> {
        self.node.subject_keys()
    }

    /// Destroys the keys under which a subject's bodies are sealed.
    pub async fn erase(&self, order: EraseOrder) -> Result<Erased, EraseError> {
        self.node.erase(&self.writer, order).await
    }

    /// The public key that signs a log's checkpoints.
    pub fn verifier_key(&self, log: &LogId) -> VerifierKey {
        self.node.verifier_key(log)
    }

    /// Keeps and prunes records.
    pub fn retention(&self) -> Retention {
        self.node.retention(Arc::new(self.writer.clone()))
    }

    /// Where each log stands.
    pub fn status(&self) -> Vec<AuditStatus> {
        self.node.status()
    }

    /// Switches to the next key if one waits; whether it did.
    pub async fn rotate_if_asked(&self) -> Result<bool, AuditError> {
        self.node.rotate_if_asked().await
    }

    /// Signs every log that grew, notes the tenants' checkpoints in the cluster's log and signs that
    /// too, and waits until the checkpoints are on disk.
    pub async fn checkpoint_now(&self) -> Result<(), AuditError> {
        self.node.checkpoint_now().await
    }

    /// Stops cleanly: records `log.stop`, finishes what was handed in, signs, closes the group.
    /// Records handed in later are refused.
    pub async fn close(&self) -> Result<(), AuditError> {
        // While the cluster's log can still note the tenants' last checkpoints.
        self.node.note_now().await?;
        self.writer.close(self.deadline).await?;
        self.node.sign_now().await?;
        self.node.close().await
    }
}

impl AuditSink for AuditLog {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        self.writer.record(event)
    }

    fn record_boxed(&self, event: Box<AuditEvent>) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        self.writer.record_boxed(event)
    }

    fn record_if_awaited(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        self.writer.record_if_awaited(event)
    }
}
