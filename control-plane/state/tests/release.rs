//! How far changes are released: after each step, what nodes outside the group run.
#![allow(clippy::unwrap_used)]

use provost_control_state::{
    Draft, Event, MAX_HALT_REASONS, MAX_HISTORY, Release, ReleaseCommand, ReleaseReply, State, StoredCommand,
    Transaction,
};
use provost_types::{Kind, Name, ResourceKey, Revision};
use serde_json::{Value, json};

fn draft(kind: &str, name: &str, spec: Value) -> Draft {
    let tenant = (!matches!(kind, "Tenant" | "NodeGroup")).then_some("acme");
    let metadata = serde_json::from_value(json!({ "name": name, "tenant": tenant })).unwrap();
    Draft { metadata, spec: serde_json::from_value(json!({ kind: spec })).unwrap() }
}

fn role(name: &str, text: &str) -> Draft {
    draft("Role", name, json!({ "description": text }))
}

fn group(name: &str) -> Draft {
    draft("NodeGroup", name, json!({ "nodes": ["canary-*"] }))
}

fn key(kind: Kind, name: &str) -> ResourceKey {
    let tenant = kind.is_tenanted().then(|| Name::new("acme").unwrap());
    ResourceKey { kind, tenant, name: Name::new(name).unwrap() }
}

struct World {
    state: State,
    next: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), next: 1 };
        world.change(
            vec![
                draft("Tenant", "acme", json!({})),
                draft("Principal", "ann", json!({})),
                role("reader", "1"),
                draft("RoleBinding", "readers", json!({ "role": "reader", "principals": ["ann"] })),
            ],
            vec![],
        );
        world
    }

    fn transaction(puts: Vec<Draft>, deletes: Vec<ResourceKey>) -> Transaction {
        let (author, message, expect) = Default::default();
        let (expect_revision, sealing_key) = (None, None);
        Transaction {
            event: Event::Apply,
            time_ns: 0,
            author,
            message,
            expect_revision,
            expect,
            puts,
            deletes,
            sealing_key,
            authorship: None,
        }
    }

    fn change(&mut self, puts: Vec<Draft>, deletes: Vec<ResourceKey>) -> u64 {
        let revision = self.next;
        self.next += 1;
        self.state.apply(Revision(revision), &Self::transaction(puts, deletes)).unwrap();
        revision
    }

    fn decide(&mut self, command: ReleaseCommand) -> ReleaseReply {
        // As it is stored.
        let stored = StoredCommand::Release1 { command }.encode().unwrap();
        let StoredCommand::Release1 { command } = StoredCommand::decode(&stored).unwrap() else { panic!("another") };
        self.state.apply_release(command)
    }

    fn advance(&mut self, revision: u64) -> ReleaseReply {
        self.decide(ReleaseCommand::Advance { revision: Revision(revision) })
    }

    fn halt(&mut self, revision: u64) -> ReleaseReply {
        let reasons = vec!["bad".repeat(1_000); 99];
        self.decide(ReleaseCommand::Halt { revision: Revision(revision), reasons, time_ns: 5 })
    }

    fn release(&self) -> Release {
        (**self.state.release().unwrap()).clone()
    }

    /// What nodes outside the group run.
    fn outside(&self) -> u64 {
        self.state.released().map_or(self.state.revision(), |s| s.revision()).0
    }
}

#[test]
fn without_a_group_everything_is_released_and_with_one_what_was_decided() {
    use ReleaseReply::{Done, Stale};
    let mut world = World::new();
    assert!(world.state.release().is_none() && world.state.released().is_none());
    assert_eq!(world.advance(1), Stale, "there is nothing to decide");
    let made = world.change(vec![group("canary")], vec![]);
    assert_eq!(world.outside(), made, "the group itself is not held");
    let before = world.state.resources().clone();
    let one = world.change(vec![role("reader", "2"), role("new", "2")], vec![]);
    let two = world.change(vec![role("reader", "3")], vec![key(Kind::Role, "new")]);
    assert_eq!(world.outside(), made);
    assert_eq!(*world.state.released().unwrap().resources(), before, "the released state is made from the history");
    for (revision, expect) in [(made, Stale), (two + 1, Stale), (one, Done), (one, Stale)] {
        assert_eq!(world.advance(revision), expect, "{revision}");
    }
    assert_eq!(world.outside(), one);
    assert_eq!(world.state.released().unwrap().resources().len(), before.len() + 1);
    assert_eq!(world.advance(two), Done);
    assert!(world.state.released().is_none());
    world.change(vec![role("reader", "4")], vec![]);
    world.change(vec![], vec![key(Kind::NodeGroup, "canary")]);
    assert!(world.state.release().is_none(), "without a group nothing is held");
}

#[test]
fn a_halt_is_about_the_newest_revision_and_ends_with_the_next_change() {
    use ReleaseReply::{Done, Stale};
    let mut world = World::new();
    let made = world.change(vec![group("canary")], vec![]);
    assert_eq!(world.halt(made), Stale, "it is released");
    let one = world.change(vec![role("reader", "2")], vec![]);
    let two = world.change(vec![role("reader", "3")], vec![]);
    for (revision, expect) in [(one, Stale), (two, Done), (two, Stale)] {
        assert_eq!(world.halt(revision), expect, "{revision}");
    }
    let halt = world.release().halted.unwrap();
    assert_eq!((halt.revision.0, halt.time_ns, halt.reasons.len()), (two, 5, MAX_HALT_REASONS));
    assert!(halt.reasons.iter().all(|r| r.len() <= 512));
    // Nobody changed the resources: what was applied is still what is wanted.
    assert_eq!((world.state.revision().0, world.outside()), (two, made));
    let three = world.change(vec![role("reader", "4")], vec![]);
    assert_eq!((world.release().halted, world.outside()), (None, made));
    assert_eq!(world.halt(three), Done);
    assert_eq!(world.advance(three), Done, "an administrator lets it through");
    assert_eq!((world.release().halted, world.outside()), (None, three));
}

#[test]
fn what_only_takes_access_away_waits_for_nothing_but_what_is_held() {
    let mut disabled = draft("Principal", "ann", json!({ "disabled": true }));
    let binding = || vec![key(Kind::RoleBinding, "readers")];
    for (what, puts, deletes, expect) in [
        ("a principal is disabled", vec![disabled.clone()], vec![], true),
        ("a principal is disabled, and a role", vec![disabled.clone(), role("other", "1")], vec![], false),
        // A policy may forbid something to those who have the role.
        ("a binding", vec![], binding(), false),
        (
            "a changed binding",
            vec![draft("RoleBinding", "readers", json!({ "role": "reader", "principals": [] }))],
            vec![],
            false,
        ),
    ] {
        let mut world = World::new();
        let made = world.change(vec![group("canary")], vec![]);
        let revision = world.change(puts.clone(), deletes.clone());
        assert_eq!(world.outside() == revision, expect, "{what}");
        // The same on top of something that is held.
        let mut world = World::new();
        world.change(vec![group("canary")], vec![]);
        world.change(vec![role("held", "1")], vec![]);
        world.change(puts, deletes);
        assert_eq!(world.outside(), made, "{what}, after a change that is held");
    }
    disabled.metadata.labels.insert("a".into(), "b".into());
    let mut world = World::new();
    let made = world.change(vec![group("canary")], vec![]);
    world.change(vec![disabled], vec![]);
    assert_eq!(world.outside(), made, "labels change too");
}

#[test]
fn a_kill_switch_waits_for_nothing_and_disturbs_no_release() {
    let switch = |reason: &str| draft("KillSwitch", "all", json!({ "reason": reason }));
    let runs_outside = |world: &World| {
        let state = world.state.released().unwrap_or_else(|| world.state.clone());
        state.resources().contains_key(&ResourceKey {
            kind: Kind::KillSwitch,
            tenant: Name::new("acme").ok(),
            name: Name::new("all").unwrap(),
        })
    };
    let mut world = World::new();
    let base = world.change(vec![group("canary")], vec![]);
    // Nothing is held: it is released like any change that takes away.
    let one = world.change(vec![switch("1")], vec![]);
    assert_eq!((world.outside(), runs_outside(&world)), (one, true));
    let off = vec![switch("").key()];
    world.change(vec![], off.clone());
    assert!(!runs_outside(&world));
    // Something is held, and then halted: both stay as they are.
    let before = world.outside();
    let held = world.change(vec![role("held", "1")], vec![]);
    world.change(vec![switch("2")], vec![]);
    assert_eq!((world.outside(), runs_outside(&world)), (before, true), "it waits, or lets through what is held");
    let newest = world.change(vec![switch("3")], vec![]);
    assert_eq!(world.halt(newest), ReleaseReply::Done);
    let after = world.change(vec![], off);
    assert_eq!((world.outside(), runs_outside(&world)), (before, false));
    let halt = world.release().halted.unwrap();
    assert_eq!(halt.revision.0, after, "what was halted before a switch stays halted after it");
    assert!(held < after);
    // A rollback leaves it on.
    let on = world.change(vec![switch("4")], vec![]);
    let (puts, deletes) = world.state.rollback(Revision(base)).unwrap();
    world.change(puts, deletes);
    assert!(world.state.revision().0 > on && runs_outside(&world));
}

#[test]
fn what_governs_calls_is_of_a_later_version() {
    let plain = World::transaction(vec![role("a", "1")], vec![]);
    let switch = World::transaction(vec![draft("KillSwitch", "all", json!({ "reason": "x" }))], vec![]);
    let off = World::transaction(vec![], vec![draft("KillSwitch", "all", json!({ "reason": "x" })).key()]);
    let mut named = plain.clone();
    named.event = Event::KillSwitchOff;
    for (transaction, version) in [(plain, 1), (switch, 2), (off, 2), (named, 2)] {
        assert_eq!(StoredCommand::V1(transaction).version(), version);
    }
}

#[test]
fn there_is_one_group_and_a_rollback_leaves_it() {
    let mut world = World::new();
    let base = world.state.revision();
    world.change(vec![group("canary")], vec![]);
    let second = World::transaction(vec![group("other")], vec![]);
    let rejected = world.state.plan(Revision(world.next), &second).unwrap_err();
    assert!(rejected.problems[0].message.contains("one NodeGroup"), "{:?}", rejected.problems);
    for (spec, field) in [
        (json!({}), "spec.nodes"),
        (json!({ "nodes": ["a*b"] }), "spec.nodes"),
        (json!({ "nodes": ["a"], "maxErrorRisePermille": 1001 }), "spec.maxErrorRisePermille"),
        (json!({ "nodes": ["a"], "holdS": 604_801 }), "spec.holdS"),
    ] {
        let bad = World::transaction(vec![draft("NodeGroup", "canary", spec.clone())], vec![]);
        let rejected = world.state.plan(Revision(world.next), &bad).unwrap_err();
        assert_eq!(rejected.problems[0].field, field, "{spec}");
    }
    let changed = world.change(vec![role("reader", "2")], vec![]);
    let (puts, deletes) = world.state.rollback(base).unwrap();
    assert_eq!((puts.len(), deletes.len()), (1, 0));
    world.change(puts, deletes);
    assert_eq!(world.outside(), changed - 1, "a rollback is a change like any other");
}

#[test]
fn what_the_history_no_longer_reaches_is_released() {
    let mut world = World::new();
    let made = world.change(vec![group("canary")], vec![]);
    for i in 0..MAX_HISTORY + 5 {
        world.change(vec![role("reader", &i.to_string())], vec![]);
        assert!(world.outside() >= world.state.compacted().0);
    }
    let oldest = world.state.compacted().0;
    assert_eq!(world.outside(), oldest);
    assert!(oldest > made);
}
