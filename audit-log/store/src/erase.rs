//! Destroying a subject's keys, and the record that says so.
//!
//! The order that destroys the keys is an entry of the audit group; applying it removes the keys
//! on every replica, durably, before it is answered. The erasure then waits in the replicated
//! state until its record is in the tenant's log. If the process dies before that, the leader of
//! the group writes the record a moment later; if it dies between the record and the note that it is
//! there, the record is written twice, under one call id.

use std::{sync::Arc, time::Duration};

use provost_audit_core::LogId;
use provost_types::{AuditEvent, AuditSink, AuditUnavailable, CallId, KeyId, Month, Name, Pseudonym, Subject, Who};

use crate::{
    AuditNode,
    own_events::{event_id, event_of, now_ns},
    retention_state::Hold,
    subject_entry::{Erasure, KeyCommand, KeyReply, MAX_REASON},
    subject_keys::propose,
};

/// The event's name in the log.
pub const ERASE_EVENT: &str = "audit.erase";
/// Keys that one record names; more keys make more records.
const KEYS_PER_RECORD: usize = 48;

/// An order to erase.
#[derive(Clone, Debug)]
pub struct EraseOrder {
    /// The tenant.
    pub tenant: Name,
    /// The principal: its name, or its pseudonym as records show it.
    pub subject: String,
    /// Only what was sealed in months before this one.
    pub before: Option<Month>,
    /// Why; it is recorded.
    pub reason: String,
    /// Who orders it.
    pub by: Who,
}

/// What was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// The subject as the record names it; `None`: nothing was ever sealed for it.
    pub pseudonym: Option<Pseudonym>,
    /// The names of the keys that are gone.
    pub keys: Vec<KeyId>,
}

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The bodies must be kept.
    #[error("PV-AUDIT-HELD: {0}; release the hold first, if it may be released")]
    Held(String),
    /// The reason is missing or too long.
    #[error("PV-AUDIT-ERASE: a reason of 1 to {MAX_REASON} bytes is needed: it is what the log says afterwards")]
    Reason,
    /// The log cannot be written now. The keys may be gone; asking again is safe.
    #[error("PV-AUDIT-UNAVAILABLE: {0}; ask again: what is erased stays erased, and is recorded")]
    Unavailable(String),
}

impl From<AuditUnavailable> for EraseError {
    fn from(cause: AuditUnavailable) -> Self {
        Self::Unavailable(cause.0)
    }
}

/// Says why a subject's bodies must be kept, if they must.
pub type HoldCheck = Arc<dyn Fn(&LogId, &str) -> Option<String> + Send + Sync>;

impl AuditNode {
    /// Every erasure asks this too.
    pub fn add_hold_check(&self, check: HoldCheck) {
        self.inner.holds.write().push(check);
    }

    /// Destroys the keys under which a subject's bodies are sealed, on every replica; a replica that
    /// is away does it when it applies the order. The erasure is recorded through `sink`.
    pub async fn erase(&self, sink: &dyn AuditSink, order: EraseOrder) -> Result<Erased, EraseError> {
        if order.reason.trim().is_empty() || order.reason.len() > MAX_REASON {
            return Err(EraseError::Reason);
        }
        let _turn = self.inner.erase_turn.lock().await;
        // What an earlier call ordered and could not record.
        self.finish_erasures(sink, Duration::ZERO).await?;
        let log = LogId(Some(order.tenant));
        // Behind the barrier every hold that was answered is known here; one that comes later, and before the
        // order, makes the machine refuse it.
        self.group().read_barrier().await.map_err(|e| EraseError::Unavailable(e.to_string()))?;
        let (pseudonym, legal_hold) = {
            let machine = self.inner.checkpointer.machine.0.lock();
            let (pseudonym, hold) = machine.held(&log, &order.subject);
            (pseudonym, hold.map(Hold::says))
        };
        let asked = || self.inner.holds.read().iter().find_map(|check| check(&log, &order.subject));
        if let Some(why) = legal_hold.or_else(asked) {
            return Err(EraseError::Held(why));
        }
        let Some(subject) = pseudonym else { return Ok(Erased { pseudonym, keys: Vec::new() }) };
        let time_ns = now_ns();
        let erasure = Erasure {
            id: event_id(time_ns).0,
            log,
            subject,
            before: order.before.map(Month::number),
            reason: order.reason,
            by: (order.by.principal, order.by.authenticated_by, order.by.client_address),
            time_ns,
        };
        let keys = match propose(&self.inner.checkpointer.group, KeyCommand::Erase(erasure.clone())).await? {
            KeyReply::Erased(keys) => keys,
            // Placed since it was looked for.
            KeyReply::Held(hold) => return Err(EraseError::Held(hold.says())),
            other => return Err(EraseError::Unavailable(format!("the audit machine answered {other:?}"))),
        };
        if !keys.is_empty() {
            self.record_erasure(sink, &erasure, &keys).await?;
        }
        Ok(Erased { pseudonym, keys })
    }

    /// Records erasures that were ordered at least `age` ago and whose record is not in the log.
    pub async fn finish_erasures(&self, sink: &dyn AuditSink, age: Duration) -> Result<(), AuditUnavailable> {
        let before = now_ns().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let pending: Vec<(Erasure, Vec<KeyId>)> = {
            let machine = self.inner.checkpointer.machine.0.lock();
            let pending = machine.keys.state.pending.values();
            pending.filter(|(erasure, _)| erasure.time_ns <= before).cloned().collect()
        };
        for (erasure, keys) in pending {
            self.record_erasure(sink, &erasure, &keys).await?;
        }
        Ok(())
    }

    async fn record_erasure(
        &self,
        sink: &dyn AuditSink,
        erasure: &Erasure,
        keys: &[KeyId],
    ) -> Result<(), AuditUnavailable> {
        for part in keys.chunks(KEYS_PER_RECORD) {
            sink.record(erasure_event(erasure, part)).await?;
        }
        propose(&self.inner.checkpointer.group, KeyCommand::Recorded(erasure.id)).await.map(drop)
    }
}

fn erasure_event(erasure: &Erasure, keys: &[KeyId]) -> AuditEvent {
    let subject = std::iter::once(format!("subject:{}", erasure.subject));
    let objects = subject.chain(keys.iter().map(|key| format!("key:{key}"))).collect();
    let (principal, authenticated_by, client_address) = erasure.by.clone();
    let subject = Subject { event: ERASE_EVENT.to_owned(), objects, detail: erasure.reason.clone() };
    let who = Who { principal, authenticated_by, client_address, agent: None };
    let mut event = event_of(erasure.log.0.clone(), subject, who);
    (event.call_id, event.time_ns) = (CallId(erasure.id), erasure.time_ns);
    (event.what.method, event.what.transport) = ("admin/audit.erase".to_owned(), "admin".to_owned());
    event
}
