//! Staged release: who gets what when, and how a revision is judged.

use std::time::Duration;

use provost_types::Revision;
use provost_wire::node::Hello;
use tokio::sync::watch;

use super::{Model, TestNode, World, role, serve};
use crate::push::{Health, StageRules, StageVerdict, Staging, Subscriber, judge};

fn staging(first: &[&str], released: u64) -> Staging {
    Staging { first: first.iter().map(|g| (*g).to_owned()).collect(), released: Revision(released) }
}

async fn join(address: &str, node: &str, group: &str) -> TestNode {
    let hello = Hello { group: group.to_owned(), ..Model::default().hello(node) };
    TestNode::with_hello(address, node, Model::default(), hello).await
}

#[tokio::test]
async fn others_get_a_revision_when_it_is_released_and_skip_what_never_was() {
    let mut world = World::new();
    let base = world.put(vec![role("ann", "1")]);
    let (stage, receiver) = watch::channel(staging(&["canary"], base));
    let served = serve(&world, receiver).await;
    let mut canary = join(&served.address, "c1", "canary").await;
    let mut other = join(&served.address, "o1", "").await;
    canary.reach(base).await;
    other.reach(base).await;

    let bad = world.put(vec![role("ann", "bad")]);
    canary.reach(bad).await;
    let good = world.put(vec![role("ann", "good"), role("bob", "good")]);
    canary.reach(good).await;
    assert_eq!(served.hub.revision(), Revision(good));
    let late = join(&served.address, "o2", "").await;
    served.until(|s| s.len() == 3).await;
    stage.send_replace(staging(&["canary"], good));
    for mut node in [other, late] {
        let mut seen = Vec::new();
        while node.model.revision != good {
            let message = node.message().await.unwrap();
            if node.model.take(message) {
                seen.push(node.model.revision);
            }
        }
        assert!(!seen.contains(&bad), "{seen:?}");
        assert_eq!(node.model.read(), world.documents());
    }

    // Without staging everybody is on one track again.
    let next = world.put(vec![role("ann", "next")]);
    canary.reach(next).await;
    stage.send_replace(Staging::default());
    let after = world.put(vec![role("ann", "after")]);
    canary.reach(after).await;
    assert_eq!(canary.model.read(), world.documents());
}

#[test]
fn a_group_may_take_what_is_released_or_goes_first() {
    for (staging, group, revision, expect) in [
        (Staging::default(), "", 9, true),
        (staging(&["canary"], 5), "canary", 9, true),
        (staging(&["canary"], 5), "", 9, false),
        (staging(&["canary"], 5), "", 5, true),
        (staging(&["canary"], 5), "blue", 6, false),
    ] {
        assert_eq!(staging.allows(group, Revision(revision)), expect, "{group} {revision}");
    }
}

fn node(group: &str, active: u64, health: (u64, u64, u64)) -> Subscriber {
    let (calls, denials, errors) = health;
    Subscriber {
        node: format!("{group}-node"),
        role: String::new(),
        group: group.to_owned(),
        version: String::new(),
        epoch: 1,
        sent: Revision(active),
        active: Some(Revision(active)),
        lag: 0,
        silent_ms: 0,
        nacked: None,
        problems: vec![],
        health: Some(Health { revision: active, calls, denials, errors }),
    }
}

#[test]
fn a_revision_is_judged_by_what_nodes_say() {
    let refused = Subscriber { nacked: Some(Revision(9)), ..node("canary", 8, (0, 0, 0)) };
    let rest = || node("", 8, (10_000, 100, 10));
    let stale = Subscriber {
        health: Some(Health { revision: 8, calls: 1_000, denials: 900, errors: 0 }),
        ..node("canary", 9, (0, 0, 0))
    };
    let minute = 60;
    for (what, nodes, age, expect) in [
        ("nobody", vec![rest()], minute, "wait"),
        ("not there yet", vec![node("canary", 8, (0, 0, 0)), rest()], minute, "wait"),
        ("one of two", vec![node("canary", 9, (0, 0, 0)), node("canary", 8, (0, 0, 0))], minute, "wait"),
        ("too early", vec![node("canary", 9, (500, 5, 0)), rest()], minute - 1, "wait"),
        ("soaked", vec![node("canary", 9, (500, 5, 0)), rest()], minute, "release"),
        ("refused", vec![refused, rest()], minute, "halt"),
        ("denials", vec![node("canary", 9, (500, 60, 0)), rest()], 1, "halt"),
        ("errors", vec![node("canary", 9, (500, 5, 20)), rest()], 1, "halt"),
        ("few calls", vec![node("canary", 9, (50, 50, 50)), rest()], minute, "release"),
        ("counts of before", vec![stale, rest()], minute, "release"),
        ("nobody to compare with", vec![node("canary", 9, (500, 500, 0))], minute, "release"),
        ("less denied than before", vec![node("canary", 9, (500, 0, 0)), rest()], minute, "release"),
    ] {
        let age = Duration::from_secs(age);
        let verdict = judge(&StageRules::default(), &staging(&["canary"], 8), Revision(9), age, &nodes);
        let found = match &verdict {
            StageVerdict::Wait { .. } => "wait",
            StageVerdict::Release => "release",
            StageVerdict::Halt { .. } => "halt",
        };
        assert_eq!(found, expect, "{what}: {verdict:?}");
    }
}
