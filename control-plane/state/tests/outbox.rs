//! No change that must be recorded leaves the outbox before it was carried, and none comes when it is full.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use provost_control_state::{
    Authorship, Draft, Event, MAX_RECORDED_OBJECTS, MAX_UNRECORDED, State, Transaction, Unrecorded,
};
use provost_types::{CallId, Metadata, Name, Revision, Spec, TenantSpec};

fn tenant(name: &str, display: u64) -> Draft {
    let metadata = Metadata { name: Name::new(name).unwrap(), tenant: None, labels: BTreeMap::new() };
    Draft { metadata, spec: Spec::Tenant(TenantSpec { display_name: display.to_string() }) }
}

fn authorship(id: u128) -> Authorship {
    Authorship { call_id: CallId(id), authenticated_by: "admin_token".into(), client_address: None, tenant: None }
}

fn change(puts: Vec<Draft>, authorship: Option<Authorship>) -> Transaction {
    Transaction {
        event: Event::Apply,
        time_ns: 7,
        author: "root".into(),
        message: "why".into(),
        expect_revision: None,
        expect: Vec::new(),
        puts,
        deletes: Vec::new(),
        sealing_key: None,
        authorship,
    }
}

fn waiting(state: &State) -> Vec<u64> {
    state.outbox().iter().map(|u| u.revision.0).collect()
}

#[test]
fn what_changed_something_and_is_not_recorded_elsewhere_waits() {
    let mut state = State::default();
    state.apply(Revision(1), &change(vec![tenant("a", 1)], Some(authorship(1)))).unwrap();
    state.apply(Revision(2), &change(vec![tenant("a", 1)], Some(authorship(2)))).unwrap();
    assert_eq!(waiting(&state), [1], "the second changed nothing");
    state.apply(Revision(3), &change(vec![tenant("a", 2)], None)).unwrap();
    assert_eq!(waiting(&state), [1], "its proposer records it");
    let unknown = change(vec![], Some(authorship(4)));
    let gone =
        provost_types::ResourceKey { kind: provost_types::Kind::Tenant, tenant: None, name: Name::new("z").unwrap() };
    state.apply(Revision(4), &Transaction { deletes: vec![gone], ..unknown }).unwrap_err();
    assert_eq!(waiting(&state), [1], "what was rejected did not happen");
    let drafts = (0..=MAX_RECORDED_OBJECTS as u64).map(|n| tenant(&format!("t{n}"), n)).collect();
    state.apply(Revision(5), &change(drafts, Some(authorship(5)))).unwrap();
    let last = state.outbox().last().unwrap();
    assert_eq!((last.objects.len(), last.objects.last().unwrap().as_str()), (MAX_RECORDED_OBJECTS + 1, "and 1 more"));
    let first = state.outbox().front().unwrap();
    assert_eq!((first.author.as_str(), first.message.as_str(), first.time_ns), ("root", "why", 7));
    assert_eq!((&first.objects[..], &first.authorship), (&["Tenant/a".to_owned()][..], &authorship(1)));
    state.apply_carried(Revision(4));
    assert_eq!(waiting(&state), [5]);
    state.apply_carried(Revision(1));
    assert_eq!(waiting(&state), [5], "an old report takes nothing back");
}

#[test]
fn a_full_outbox_takes_only_what_is_recorded_elsewhere() {
    let full = (0..MAX_UNRECORDED as u64).map(|n| Unrecorded {
        revision: Revision(n + 1),
        event: Event::Apply,
        time_ns: 0,
        author: String::new(),
        message: String::new(),
        authorship: authorship(n.into()),
        objects: Vec::new(),
    });
    let mut state = State::default().with_outbox(full);
    let next = Revision(MAX_UNRECORDED as u64 + 1);
    let refused = state.apply(next, &change(vec![tenant("a", 1)], Some(authorship(0)))).unwrap_err();
    assert_eq!(refused.problems[0].code, "PV-ADMIN-AUDIT");
    assert!(state.resources().is_empty());
    state.apply(next, &change(vec![tenant("a", 1)], None)).unwrap();
    state.apply_carried(Revision(1));
    state.apply(Revision(next.0 + 1), &change(vec![tenant("b", 1)], Some(authorship(0)))).unwrap();
    assert_eq!(state.outbox().len(), MAX_UNRECORDED);
}

proptest! {
    /// Whatever is carried when: what is recorded and what waits are together every change, once.
    #[test]
    fn nothing_is_lost_and_nothing_waits_twice(steps in prop::collection::vec((0_u64..4, any::<bool>()), 1..60)) {
        let mut state = State::default();
        let (mut made, mut recorded) = (Vec::new(), Vec::new());
        for (n, (value, carry)) in steps.into_iter().enumerate() {
            let revision = Revision(n as u64 + 1);
            if carry {
                let through = state.outbox().iter().nth(value as usize).map(|u| u.revision);
                recorded.extend(waiting(&state).into_iter().filter(|r| Some(Revision(*r)) <= through));
                state.apply_carried(through.unwrap_or_default());
            } else {
                let applied = state.apply(revision, &change(vec![tenant("a", value)], Some(authorship(1)))).unwrap();
                made.extend(applied.entry.is_some().then_some(revision.0));
            }
            let all: Vec<u64> = recorded.iter().copied().chain(waiting(&state)).collect();
            prop_assert_eq!(&all, &made);
        }
    }
}
