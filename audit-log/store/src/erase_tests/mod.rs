//! After an erasure nobody can read: tried with everything that is on a node's disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod logs;
mod replica;
mod replicas;

use provost_audit_core::LogId;
use provost_sealed::{Keep, Place, ReadyKey, keep};
use provost_types::{
    AuditEvent, CallId, Impact, KeptBody, Month, Name, Phase, Pseudonym, Revision, SubjectKey, What, Who, Why,
};

use crate::subject_entry::Erasure;

const NOVEMBER: u64 = 1_795_000_000_000_000_000;
const CANARY: &str = "canary-4111-1111-1111-1111";

fn acme() -> LogId {
    LogId(Name::new("acme").ok())
}

fn month() -> Month {
    Month::of_ns(NOVEMBER)
}

fn event(subject: &str, call: u128, key: &SubjectKey, body: &[u8]) -> AuditEvent {
    let place = Place { tenant: "acme", subject, month: month(), call_id: CallId(call), phase: Phase::Denied };
    AuditEvent {
        phase: Phase::Denied,
        call_id: CallId(call),
        tenant: acme().0,
        time_ns: NOVEMBER,
        who: Who { principal: subject.to_owned(), ..Who::default() },
        what: What { method: "tools/call".to_owned(), ..What::default() },
        why: Why::default(),
        decision: None,
        policies: Vec::new(),
        revision: Revision(1),
        status: None,
        error: None,
        reason: None,
        guards: Vec::new(),
        body: Some(keep(&ReadyKey::new(key.clone()), &place, body, None, Keep::Sealed).unwrap()),
        impact: Impact::default(),
    }
}

fn erasure(id: u128, subject: Pseudonym) -> Erasure {
    let by = ("admin".to_owned(), "admin_token".to_owned(), None);
    Erasure { id, log: acme(), subject, before: None, reason: "asked to".to_owned(), by, time_ns: NOVEMBER }
}

fn sealed_of(event: &AuditEvent) -> (Vec<u8>, [u8; 32]) {
    let body = event.body.as_ref().unwrap();
    let KeptBody::Sealed(sealed) = &body.kept else { panic!("not kept") };
    (sealed.bytes.to_vec(), body.commit)
}
