//! Administrative changes in the audit log. A change of resources that took effect has one event,
//! which the outbox carries; one that was refused or failed has one too, recorded where it was asked
//! for. Changes of the cluster itself have an event before they are tried and one with their outcome,
//! with the same id.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use provost_control_state::{Authorship, Event, MAX_RECORDED_OBJECTS, Problem, Unrecorded};
use provost_types::{
    AuditEvent, CallId, CallStatus, Impact, Name, Phase, ResourceKey, Revision, Subject, What, Who, Why,
};

use crate::{Caller, ControlError, ErrorKind, Scope};

/// Nanoseconds since the Unix epoch; 0 on a clock before it.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A new id: 48 bits of milliseconds, version 7, random (RFC 9562, section 5.7).
pub(crate) fn call_id(time_ns: u64) -> CallId {
    let mut random = [0; 10];
    // Without randomness ids repeat within a millisecond only, and records stay distinct.
    let _ = rand::fill(&mut random);
    let low = random.iter().fold(0_u128, |n, b| n << 8 | u128::from(*b));
    let (a, b) = (low & 0xfff, low >> 12 & ((1 << 62) - 1));
    CallId(u128::from(time_ns / 1_000_000) << 80 | 7 << 76 | a << 64 | 2 << 62 | b)
}

/// How a change ended.
pub(crate) enum Outcome<'a> {
    /// It took effect.
    Changed(Revision),
    /// It was rejected and changed nothing.
    Refused(&'a [Problem]),
    /// It was not answered, or could not be tried.
    Failed(&'a ControlError),
}

/// The record of one change.
pub(crate) struct Record {
    event: AuditEvent,
}

impl Record {
    /// What is about to be tried.
    pub(crate) fn new(caller: &Caller, event: Event, keys: &[ResourceKey], message: &str, revision: Revision) -> Self {
        let time_ns = now_ns();
        let objects = named(keys.iter().map(|k| k.to_string()), keys.len());
        let event = AuditEvent {
            phase: Phase::Event,
            call_id: call_id(time_ns),
            tenant: tenant_of(caller, keys),
            time_ns,
            who: Who {
                principal: caller.name.clone(),
                agent: None,
                client_address: caller.address.clone(),
                authenticated_by: caller.authenticated_by.clone(),
            },
            what: What {
                method: format!("admin/{}", event.as_str()),
                transport: "admin".to_owned(),
                subject: Some(Subject { event: event.as_str().to_owned(), objects, detail: message.to_owned() }),
                ..What::default()
            },
            why: Why { attempt: 1, ..Why::default() },
            decision: None,
            policies: Vec::new(),
            revision,
            status: None,
            error: None,
            reason: None,
            guards: Vec::new(),
            body: None,
            impact: Impact::default(),
        };
        Self { event }
    }

    /// What the outbox has to know to record it.
    pub(crate) fn authorship(&self) -> Authorship {
        Authorship {
            call_id: self.event.call_id,
            authenticated_by: self.event.who.authenticated_by.clone(),
            client_address: self.event.who.client_address.clone(),
            tenant: self.event.tenant.clone(),
        }
    }

    /// The event before the change.
    pub(crate) fn attempt(&self) -> AuditEvent {
        self.event.clone()
    }

    /// The event after it.
    pub(crate) fn outcome(&self, outcome: Outcome<'_>) -> AuditEvent {
        let mut event = self.event.clone();
        event.time_ns = now_ns();
        event.impact.duration_us = event.time_ns.saturating_sub(self.event.time_ns) / 1_000;
        match outcome {
            Outcome::Changed(revision) => {
                event.revision = revision;
                event.status = Some(CallStatus::Ok);
            }
            Outcome::Refused(problems) => {
                event.status = Some(CallStatus::RpcError);
                event.error = problems.first().map(|p| p.code.to_string());
                event.reason = problems.first().map(|p| p.message.clone());
            }
            Outcome::Failed(error) => {
                // Without an answer of a quorum nobody knows yet whether it took effect, unless it is in no log.
                let unknown = error.kind == ErrorKind::Unavailable && !error.is_not_logged();
                event.status = Some(if unknown { CallStatus::Unknown } else { CallStatus::RpcError });
                event.error = Some(error.code().to_owned());
                event.reason = Some(error.failure.message.clone());
            }
        }
        event
    }
}

/// Objects named in one record: with the item that counts the others as many as a record's list holds.
const MAX_NAMED: usize = 63;

/// The first of `count` objects, and how many more there are.
fn named(objects: impl Iterator<Item = String>, count: usize) -> Vec<String> {
    let more = count.checked_sub(MAX_NAMED + 1).map(|n| format!("and {} more", n + 1));
    let kept = if more.is_some() { MAX_NAMED } else { count };
    objects.take(kept).chain(more).collect()
}

/// The objects of a change as its record names them. The outbox may have counted some itself.
fn objects_of(change: &Unrecorded) -> Vec<String> {
    let counted = change.objects.get(MAX_RECORDED_OBJECTS);
    let uncounted = change.objects.len().min(MAX_RECORDED_OBJECTS);
    let more = counted.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok()).unwrap_or(0);
    named(change.objects.iter().take(uncounted).cloned(), uncounted + more)
}

/// The record of a change that took effect.
pub(crate) fn of_change(change: &Unrecorded) -> AuditEvent {
    let Authorship { call_id, authenticated_by, client_address, tenant } = change.authorship.clone();
    let event = change.event.as_str();
    let subject = Subject { event: event.to_owned(), objects: objects_of(change), detail: change.message.clone() };
    AuditEvent {
        phase: Phase::Event,
        call_id,
        tenant,
        time_ns: change.time_ns,
        who: Who { principal: change.author.clone(), agent: None, client_address, authenticated_by },
        what: What {
            method: format!("admin/{event}"),
            transport: "admin".to_owned(),
            subject: Some(subject),
            ..What::default()
        },
        why: Why { attempt: 1, ..Why::default() },
        decision: None,
        policies: Vec::new(),
        revision: change.revision,
        status: Some(CallStatus::Ok),
        error: None,
        reason: None,
        guards: Vec::new(),
        body: None,
        impact: Impact::default(),
    }
}

/// A change within one tenant belongs to that tenant's log; any other to the cluster's own.
fn tenant_of(caller: &Caller, keys: &[ResourceKey]) -> Option<Name> {
    if let Scope::Tenant(own) = &caller.scope {
        return Some(own.clone());
    }
    let first = keys.first()?.tenant.clone()?;
    keys.iter().all(|k| k.tenant.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_objects_are_named_as_a_record_holds_and_the_others_are_counted() {
        let list = |n: usize| (0..n).map(|i| i.to_string());
        for (count, last) in
            [(0, None), (1, Some("0")), (63, Some("62")), (64, Some("and 1 more")), (70, Some("and 7 more"))]
        {
            let named = named(list(count), count);
            assert_eq!((named.len(), named.last().map(String::as_str)), (count.min(64), last), "{count}");
        }
        let mut change = Unrecorded {
            revision: Revision(1),
            event: Event::Apply,
            time_ns: 0,
            author: String::new(),
            message: String::new(),
            authorship: Authorship {
                call_id: CallId(1),
                authenticated_by: String::new(),
                client_address: None,
                tenant: None,
            },
            objects: list(MAX_RECORDED_OBJECTS).collect(),
        };
        assert_eq!(objects_of(&change).last().map(String::as_str), Some("and 937 more"));
        change.objects.push("and 500 more".to_owned());
        assert_eq!(objects_of(&change).last().map(String::as_str), Some("and 1437 more"));
    }
}
