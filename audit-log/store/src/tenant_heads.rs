//! Notes each tenant's signed checkpoint in the cluster's log.
//!
//! Only the cluster's log is cosigned by witnesses. Because it holds every tenant's newest
//! checkpoint as a record, a tenant's log that is deleted, cut off or rolled back shows there, and
//! tenants learn nothing of each other.
//! Invariants: a checkpoint is noted after it is in consensus, never before; one record a tenant and
//! checkpoint, and none while the tenant's log does not grow. A crash between signature and record
//! is made good at the next start: each log is then noted once more.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use provost_audit_core::{Hash, LogId};
use provost_audit_verify::TENANT_CHECKPOINT;
use provost_types::{AuditEvent, AuditReceipt, AuditSink, Subject, Who};

use crate::{error::AuditError, machine::SharedMachine, own_events::event_of};

/// Checkpoints that are recorded at once.
const NOTED_AT_ONCE: usize = 512;

/// What was noted since this node started.
pub(crate) struct TenantHeads {
    cluster: String,
    sink: Mutex<Option<Arc<dyn AuditSink>>>,
    noted: Mutex<BTreeMap<LogId, u64>>,
}

impl TenantHeads {
    pub(crate) fn new(cluster: String) -> Self {
        Self { cluster, sink: Mutex::default(), noted: Mutex::default() }
    }

    /// Records through this; until then nothing is noted.
    pub(crate) fn attach(&self, sink: Arc<dyn AuditSink>) {
        *self.sink.lock() = Some(sink);
    }

    /// The way that was attached.
    pub(crate) fn sink(&self) -> Option<Arc<dyn AuditSink>> {
        self.sink.lock().clone()
    }

    /// Records the checkpoints that are newer than what was noted, and waits until they are durable.
    pub(crate) async fn note(&self, machine: &SharedMachine) -> Result<(), AuditError> {
        let Some(sink) = self.sink() else { return Ok(()) };
        let due = self.due(machine);
        for part in due.chunks(NOTED_AT_ONCE) {
            let event = |(log, size, root): &(LogId, u64, Hash)| {
                event(TENANT_CHECKPOINT, log.origin(&self.cluster), format!("{size} {root}"))
            };
            let records = part.iter().map(|due| record(&*sink, event(due)));
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
}

/// Records an event of the log's own.
pub(crate) async fn record(sink: &dyn AuditSink, event: AuditEvent) -> Result<AuditReceipt, AuditError> {
    let name = event.what.subject.as_ref().map(|s| s.event.clone()).unwrap_or_default();
    let recorded = sink.record(event).await;
    recorded.map_err(|e| AuditError::Unavailable(format!("the event {name} is not recorded: {}", e.0)))
}

/// An event of the log's own, for the cluster's log.
pub(crate) fn event(name: &str, object: String, detail: String) -> AuditEvent {
    let subject = Subject { event: name.to_owned(), objects: vec![object], detail };
    let who = Who { authenticated_by: "internal".to_owned(), ..Who::default() };
    event_of(None, subject, who)
}
