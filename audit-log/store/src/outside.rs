//! What those outside of the group do with its checkpoints: witnesses cosign them, the control plane
//! holds them, a contradiction ends the recording.

use std::sync::Arc;

use provost_audit_core::{LogId, VerifierKey};
use provost_types::AuditSink;

use crate::{AuditLog, error::AuditError};

impl AuditLog {
    /// Whether this node leads the audit group now.
    pub fn is_leader(&self) -> bool {
        self.inner.checkpointer.group.is_leader()
    }

    /// The latest checkpoint of each log that is held in the audit group, as signed notes.
    pub fn checkpoints(&self) -> Vec<(LogId, String)> {
        let machine = self.inner.checkpointer.machine.0.lock();
        let note = |head: crate::entry::Head| Some((head.log.clone(), machine.checkpoint(&head.log)?.note.clone()));
        machine.heads().into_iter().filter_map(note).collect()
    }

    /// The first key that signed a log's checkpoints. It tells this log from another of its name, and a
    /// rotation does not change it.
    pub fn first_key(&self, log: &LogId) -> VerifierKey {
        let machine = self.inner.checkpointer.machine.0.lock();
        VerifierKey { name: log.origin(&self.inner.checkpointer.cluster), public_key: machine.first_key() }
    }

    /// From now on the tenants' checkpoints are recorded in the cluster's log, through this way.
    pub fn note_tenants(&self, sink: Arc<dyn AuditSink>) {
        self.inner.checkpointer.tenants.attach(sink);
    }

    /// Publishes a checkpoint that witnesses have cosigned, on every node of the group; the caller
    /// has checked its signatures. False: a newer one is published already.
    pub async fn publish_cosigned(&self, note: String) -> Result<bool, AuditError> {
        self.inner.checkpointer.cosigned(note).await
    }

    /// Notes that the control plane holds this checkpoint.
    pub fn note_held(&self, log: LogId, size: u64) {
        self.inner.held.lock().insert(log, size);
    }

    /// Records nothing from now on. For a log that was found to contradict what is known of it; calls
    /// that must be recorded are then refused too.
    pub fn refuse(&self, why: &AuditError) {
        tracing::error!(code = why.code(), %why, "nothing is recorded any more");
        self.inner.checkpointer.machine.0.lock().refuse(why.to_string());
    }
}
