//! What those outside of the group do with its checkpoints: witnesses cosign them, the control plane
//! holds them, a contradiction ends the recording.

use std::sync::Arc;

use provost_audit_core::{LogId, VerifierKey};
use provost_types::AuditSink;

use crate::{error::AuditError, node::AuditNode};

impl AuditNode {
    /// Whether this node leads the audit group now.
    pub fn is_leader(&self) -> bool {
        self.group().is_leader()
    }

    /// Waits until everything that was acknowledged before is applied here.
    pub async fn up_to_date(&self) -> Result<(), AuditError> {
        Ok(self.group().read_barrier().await.map(drop)?)
    }

    /// The latest checkpoint of each log that is held in the audit group, as signed notes.
    pub fn checkpoints(&self) -> Vec<(LogId, String)> {
        let machine = self.checkpointer().machine.0.lock();
        let note = |head: crate::entry::Head| Some((head.log.clone(), machine.checkpoint(&head.log)?.note.clone()));
        machine.heads().into_iter().filter_map(note).collect()
    }

    /// The first key that signed a log's checkpoints. It tells this log from another of its name, and a
    /// rotation does not change it.
    pub fn first_key(&self, log: &LogId) -> VerifierKey {
        let machine = self.checkpointer().machine.0.lock();
        VerifierKey { name: log.origin(&self.checkpointer().cluster), public_key: machine.first_key() }
    }

    /// From now on the tenants' checkpoints are recorded in the cluster's log, through this way.
    pub fn note_tenants(&self, sink: Arc<dyn AuditSink>) {
        self.checkpointer().tenants.attach(sink);
    }

    /// Publishes a checkpoint that witnesses have cosigned, on every node of the group; the caller
    /// has checked its signatures. False: a newer one is published already.
    pub async fn publish_cosigned(&self, note: String) -> Result<bool, AuditError> {
        self.checkpointer().cosigned(note).await
    }

    /// Notes that the control plane holds this checkpoint.
    pub fn note_held(&self, log: LogId, size: u64) {
        self.held().lock().insert(log, size);
    }

    /// Records nothing from now on. For a log that was found to contradict what is known of it; calls
    /// that must be recorded are then refused too.
    pub fn refuse(&self, why: &AuditError) {
        tracing::error!(code = why.code(), %why, "nothing is recorded any more");
        self.checkpointer().machine.0.lock().refuse(why.to_string());
    }
}
