//! What this plane records of itself: that writers start and stop, and what is kept and pruned.

use std::time::{SystemTime, UNIX_EPOCH};

use provost_types::{AuditEvent, CallId, Impact, Name, Phase, Revision, Subject, What, Who, Why};

/// An event of the writer itself, in the cluster's log.
pub(crate) fn own_event(writer: &str, name: &str, epoch: u64) -> AuditEvent {
    let detail = format!("epoch {epoch}");
    let subject = Subject { event: name.to_owned(), objects: vec![writer.to_owned()], detail };
    let who = Who { authenticated_by: "internal".to_owned(), ..Who::default() };
    event_of(None, subject, who)
}

/// An event that is no call.
pub(crate) fn event_of(tenant: Option<Name>, subject: Subject, who: Who) -> AuditEvent {
    let time_ns = now_ns();
    AuditEvent {
        phase: Phase::Event,
        call_id: event_id(time_ns),
        tenant,
        time_ns,
        who,
        what: What { subject: Some(subject), ..What::default() },
        why: Why::default(),
        decision: None,
        policies: Vec::new(),
        revision: Revision::default(),
        status: None,
        error: None,
        reason: None,
        guards: Vec::new(),
        body: None,
        impact: Impact::default(),
    }
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A UUID version 7 (RFC 9562): 48 bits of milliseconds, then randomness.
pub(crate) fn event_id(now_ns: u64) -> CallId {
    let millis = u128::from(now_ns / 1_000_000) & 0xffff_ffff_ffff;
    let random: u128 = rand::random();
    let body = random & 0x0000_0000_0000_0fff_3fff_ffff_ffff_ffff;
    CallId((millis << 80) | (7 << 76) | (2 << 62) | body)
}
