//! Staged release: who gets what when, how a change is taken back, and how it is judged.

use std::{collections::BTreeMap, time::Duration};

use provost_control_state::{Draft, ReleaseCommand, ReleaseReply};
use provost_types::{Metadata, NodeGroupSpec, Revision, Spec};
use provost_wire::node::{Nack, NackProblem, push_down::Down, push_up::Up};

use super::{Model, TestNode, World, name, role, serve, up};
use crate::{
    push::{Before, Health, Part, StageVerdict, Subscriber, judge},
    stored_state::StoredState,
};

fn group() -> NodeGroupSpec {
    NodeGroupSpec { nodes: ["c*".to_owned()].into(), ..NodeGroupSpec::default() }
}

fn group_draft() -> Draft {
    let metadata = Metadata { name: name("canary"), tenant: None, labels: BTreeMap::new() };
    Draft { metadata, spec: Spec::NodeGroup(group()) }
}

impl World {
    fn decide(&mut self, command: ReleaseCommand) {
        assert_eq!(self.state.apply_release(command), ReleaseReply::Done);
        self.publish();
    }

    fn halt(&mut self, revision: u64) {
        let reasons = vec!["a test says so".to_owned()];
        self.decide(ReleaseCommand::Halt { revision: Revision(revision), reasons, time_ns: 1 });
    }

    fn release(&mut self, revision: u64) {
        self.decide(ReleaseCommand::Advance { revision: Revision(revision) });
    }

    /// Another control-plane node, which has this state from a snapshot.
    fn elsewhere(&self) -> Self {
        let bytes = serde_json::to_vec(&StoredState::of(&self.state)).unwrap();
        let stored: StoredState = serde_json::from_slice(&bytes).unwrap();
        let mut other = Self { state: stored.into_state(), next: self.next, ..Self::new() };
        assert_eq!(other.state, self.state);
        other.next = self.next;
        other.publish();
        other
    }
}

async fn join(address: &str, node: &str) -> TestNode {
    TestNode::connect(address, node, Model::default()).await
}

impl TestNode {
    /// Reads until it is at the revision exactly, and returns the revisions on the way.
    async fn come_to(&mut self, revision: u64) -> Vec<u64> {
        let mut seen = Vec::new();
        while self.model.hash.is_empty() || self.model.revision != revision {
            let message = self.message().await.expect("the stream ended");
            if self.model.take(message) {
                seen.push(self.model.revision);
            }
        }
        seen
    }
}

#[tokio::test]
async fn others_get_a_change_when_it_is_released_and_all_get_all_without_a_group() {
    let mut world = World::new();
    world.put(vec![role("ann", "1")]);
    let base = world.put(vec![group_draft()]);
    let served = serve(&world).await;
    let (mut canary, mut other) = (join(&served.address, "c1").await, join(&served.address, "o1").await);
    canary.reach(base).await;
    other.reach(base).await;

    let first = world.put(vec![role("ann", "2")]);
    canary.reach(first).await;
    let second = world.put(vec![role("ann", "3"), role("bob", "3")]);
    canary.reach(second).await;
    assert_eq!(served.hub.revision(), Revision(second));
    // A bookmark says what the node may run, or it would look behind.
    loop {
        if let Some(Down::Bookmark(bookmark)) = other.message().await.unwrap().down {
            assert_eq!(bookmark.revision, base, "a held change reached others");
            break;
        }
    }
    let parts = |subscribers: &[Subscriber]| subscribers.iter().map(|s| (s.part, s.lag)).collect::<Vec<_>>();
    canary.ack().await;
    other.ack().await;
    served.until(|s| parts(s) == [(Part::Canary, 0), (Part::Held, 0)]).await;

    world.release(first);
    assert_eq!(other.come_to(first).await, [first]);
    world.release(second);
    assert_eq!(other.come_to(second).await, [second]);
    assert_eq!(other.model.read(), world.documents());
    served.until(|s| s.iter().all(|s| s.part != Part::Held)).await;

    let held = world.put(vec![role("bob", "4")]);
    canary.reach(held).await;
    let key = group_draft().key();
    let ungrouped = world.commit(&super::transaction(vec![], vec![key], None));
    for node in [&mut canary, &mut other] {
        node.reach(ungrouped).await;
        assert_eq!(node.model.read(), world.documents());
    }
    let after = world.put(vec![role("bob", "5")]);
    other.reach(after).await;
}

#[tokio::test]
async fn a_halted_change_is_taken_back_and_the_next_leads_on_from_what_is_released() {
    let mut world = World::new();
    world.put(vec![role("ann", "1")]);
    let base = world.put(vec![group_draft()]);
    let documents = world.documents();
    let served = serve(&world).await;
    let (mut canary, mut other) = (join(&served.address, "c1").await, join(&served.address, "o1").await);
    canary.reach(base).await;
    other.reach(base).await;

    let bad = world.put(vec![role("ann", "bad"), role("bob", "bad")]);
    canary.reach(bad).await;
    let problems = vec![NackProblem { code: "PV-POLICY-INVALID".to_owned(), ..NackProblem::default() }];
    canary.up.send(up(Up::Nack(Nack { revision: bad, problems }))).await.unwrap();
    served.until(|s| s[0].nacked == Some(Revision(bad))).await;
    let why = judge(&group(), (Revision(bad), Revision(bad)), None, &Before::default(), &served.hub.subscribers());
    assert!(matches!(why, StageVerdict::Halt { .. }), "{why:?}");
    world.halt(bad);
    assert_eq!(canary.come_to(base).await, [base]);
    assert_eq!((canary.model.read(), canary.model.back_from), (documents.clone(), bad));
    canary.ack().await;
    served.until(|s| s[0].part == Part::Returned && s[0].active == Some(Revision(base))).await;

    // Another control-plane node does the same, from the state alone, also for a node that missed it.
    let mut elsewhere = world.elsewhere();
    let other_hub = serve(&elsewhere).await;
    let mut late = join(&other_hub.address, "c2").await;
    assert_eq!(late.come_to(base).await, [base]);
    assert_eq!(late.model.read(), documents);

    for (world, node) in [(&mut world, &mut canary), (&mut elsewhere, &mut late)] {
        let good = world.put(vec![role("ann", "good")]);
        assert_eq!(node.come_to(good).await, [good], "the way leads over what was halted");
        assert_eq!(node.model.read(), world.documents());
        world.release(good);
    }
    let good = world.state.revision().0;
    assert_eq!(other.come_to(good).await, [good]);
    assert_eq!(other.model.read(), world.documents());
}

#[tokio::test]
async fn a_node_that_runs_what_was_halted_meanwhile_goes_back_when_it_comes_back() {
    let mut world = World::new();
    let base = world.put(vec![role("ann", "1"), group_draft()]);
    let served = serve(&world).await;
    let mut canary = join(&served.address, "c1").await;
    let bad = world.put(vec![role("ann", "bad")]);
    canary.reach(bad).await;
    let model = std::mem::take(&mut canary.model);
    drop((canary, served));
    world.halt(bad);
    let elsewhere = world.elsewhere();
    let served = serve(&elsewhere).await;
    let mut back = TestNode::connect(&served.address, "c1", model).await;
    assert_eq!(back.come_to(base).await, [base]);
    assert_eq!(back.model.back_from, bad);
}

fn node(own: &str, active: u64, health: (u64, u64, u64)) -> Subscriber {
    let (calls, denials, errors) = health;
    Subscriber {
        node: own.to_owned(),
        role: "data-plane".to_owned(),
        group: String::new(),
        version: String::new(),
        epoch: 1,
        sent: Revision(active),
        active: Some(Revision(active)),
        lag: 0,
        silent_ms: 0,
        nacked: None,
        problems: vec![],
        health: Some(Health { revision: active, calls, denials, errors }),
        part: if own.starts_with('c') { Part::Canary } else { Part::Held },
        plugins: None,
    }
}

#[test]
fn a_change_is_judged_by_what_nodes_say() {
    let refused = |revision| Subscriber { nacked: Some(Revision(revision)), ..node("c1", 8, (0, 0, 0)) };
    let rest = || node("o1", 8, (10_000, 100, 10));
    let early = Subscriber {
        health: Some(Health { revision: 8, calls: 1_000, denials: 900, errors: 0 }),
        ..node("c1", 9, (0, 0, 0))
    };
    let none = Before::default();
    let mut calm = Before::default();
    calm.note(Revision(8), &[node("c1", 8, (1_000, 10, 1)), node("o9", 8, (9_000, 9_000, 9_000))]);
    for (what, nodes, ran, before, expect) in [
        ("nobody", vec![rest()], 60, &none, "wait"),
        ("not there yet", vec![node("c1", 8, (0, 0, 0)), rest()], 60, &none, "wait"),
        ("one of two", vec![node("c1", 9, (0, 0, 0)), node("c2", 8, (0, 0, 0))], 60, &none, "wait"),
        ("too early", vec![node("c1", 9, (500, 5, 0)), rest()], 59, &none, "hold"),
        ("held for long enough", vec![node("c1", 9, (500, 5, 0)), rest()], 60, &none, "release"),
        ("runs a later one", vec![node("c1", 11, (500, 5, 0)), rest()], 60, &none, "release"),
        ("refused", vec![refused(11), rest()], 60, &none, "halt"),
        ("refused what was replaced since", vec![refused(9), rest()], 60, &none, "wait"),
        ("denials", vec![node("c1", 9, (500, 60, 0)), rest()], 1, &none, "halt"),
        ("errors", vec![node("c1", 9, (500, 5, 20)), rest()], 1, &none, "halt"),
        ("few calls", vec![node("c1", 9, (50, 50, 50)), rest()], 60, &none, "release"),
        ("counts of before", vec![early, rest()], 60, &none, "release"),
        ("nothing to compare with", vec![node("c1", 9, (500, 500, 0))], 60, &none, "release"),
        ("only the group, worse than before", vec![node("c1", 9, (500, 500, 0))], 60, &calm, "halt"),
        ("only the group, as before", vec![node("c1", 9, (500, 5, 0))], 60, &calm, "release"),
        ("less denied than before", vec![node("c1", 9, (500, 0, 0)), rest()], 60, &calm, "release"),
    ] {
        let verdict = judge(&group(), (Revision(9), Revision(11)), Some(Duration::from_secs(ran)), before, &nodes);
        let found = match &verdict {
            StageVerdict::Wait { .. } => "wait",
            StageVerdict::Hold { .. } => "hold",
            StageVerdict::Release => "release",
            StageVerdict::Halt { .. } => "halt",
        };
        assert_eq!(found, expect, "{what}: {verdict:?}");
    }
}
