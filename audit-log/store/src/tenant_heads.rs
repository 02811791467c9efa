//! Notes each tenant's signed checkpoint in the cluster's log.
//!
//! Only the cluster's log is cosigned by witnesses. Because it holds every tenant's newest
//! checkpoint as a record, a tenant's log that is deleted, cut off or rolled back shows there, and
//! tenants learn nothing of each other.
//! Invariants: a checkpoint is noted after it is in consensus, never before; one record a tenant and
//! checkpoint, and none while the tenant's log does not grow. A crash between signature and record
//! is made good at the next start: each log is then noted once more.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use provost_audit_core::{Hash, LogId};
use provost_audit_verify::TENANT_CHECKPOINT;
use tokio::sync::{mpsc, oneshot};

use crate::{
    audit_log::own_event, config::AuditLogConfig, error::AuditError, machine::SharedMachine, sequencer::Message,
};

/// Checkpoints that are recorded at once.
const NOTED_AT_ONCE: usize = 512;

/// What was noted since this node started.
pub(crate) struct TenantHeads {
    queue: mpsc::Sender<Message>,
    cluster: String,
    deadline: Duration,
    noted: Mutex<BTreeMap<LogId, u64>>,
}

impl TenantHeads {
    pub(crate) fn new(queue: mpsc::Sender<Message>, config: &AuditLogConfig) -> Self {
        Self { queue, cluster: config.cluster.clone(), deadline: config.deadline, noted: Mutex::default() }
    }

    /// Records the checkpoints that are newer than what was noted, and waits until they are durable.
    pub(crate) async fn note(&self, machine: &SharedMachine) -> Result<(), AuditError> {
        let due = self.due(machine);
        for part in due.chunks(NOTED_AT_ONCE) {
            let records = part.iter().map(|(log, size, root)| self.record(log, *size, root));
            futures::future::try_join_all(records).await?;
            let mut noted = self.noted.lock();
            noted.extend(part.iter().map(|(log, size, _)| (log.clone(), *size)));
        }
        Ok(())
    }

    fn due(&self, machine: &SharedMachine) -> Vec<(LogId, u64, Hash)> {
        let machine = machine.0.lock();
        let noted = self.noted.lock();
        let signed = |head: crate::entry::Head| {
            let signed = &machine.checkpoint(&head.log)?.head;
            let newer = noted.get(&head.log).is_none_or(|size| *size < signed.size);
            (head.log != LogId::CLUSTER && newer).then_some((head.log, signed.size, signed.root))
        };
        machine.heads().into_iter().filter_map(signed).collect()
    }

    async fn record(&self, log: &LogId, size: u64, root: &Hash) -> Result<(), AuditError> {
        let unavailable = |why: &str| AuditError::Unavailable(format!("a tenant's checkpoint is not noted: {why}"));
        let event = own_event(TENANT_CHECKPOINT, log.origin(&self.cluster), format!("{size} {root}"));
        let (reply, answer) = oneshot::channel();
        let message = Message::Record(Box::new(event), reply);
        let recorded = async {
            self.queue.send(message).await.map_err(|_| unavailable("the audit log is closed"))?;
            let answer = answer.await.map_err(|_| unavailable("the audit log is closed"))?;
            answer.map(drop).map_err(|e| unavailable(&e.0))
        };
        match tokio::time::timeout(self.deadline, recorded).await {
            Ok(recorded) => recorded,
            Err(_) => Err(unavailable("not durable in time")),
        }
    }
}
