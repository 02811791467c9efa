//! One node of three is not the cluster: it refuses writes and reads with a clear error, agents work on,
//! and all is well once the others are back.

use std::time::Duration;

use crate::{
    admin::Failed,
    cluster::{Cluster, HEAL_LIMIT, Member},
    history::Value,
    tool_calls::ToolCalls,
    verdict::judge,
    workload::{Routing, Scene, Workload},
};

/// A refusal may take this long: deadlines inside, but no hang.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);
/// The test's own patience, to tell a hang from a slow refusal.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_leader_alone_refuses_and_heals() {
    alone(|leader, member| member.id == leader.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_alone_refuses_and_heals() {
    alone(|leader, member| member.id != leader.id).await;
}

/// Pauses all nodes but the first of which `stays(leader, node)`.
async fn alone(stays: impl Fn(&Member, &Member) -> bool) {
    let Some(cluster) = Cluster::start().await else { return };
    let scene = Scene::set(&cluster).await;
    let calls = ToolCalls::start(&cluster.place);
    scene.writable_everywhere(&cluster).await;

    let leader = cluster.leader().await;
    let members = cluster.place.members();
    let left = members.iter().find(|m| stays(&leader, m)).unwrap();
    let paused: Vec<&Member> = members.iter().filter(|m| m.id != left.id).collect();
    paused.iter().for_each(|m| cluster.pause(m));

    // Twice: at once, and when the node has noticed.
    for wait in [Duration::ZERO, Duration::from_secs(5)] {
        tokio::time::sleep(wait).await;
        expect_refusal("a write", scene.write(left.id, "reg-0", PATIENCE).await.map(Some));
        // A read that is answered here could be of the past.
        expect_refusal("a read", scene.read(left.id, "reg-0", PATIENCE).await);
    }

    paused.iter().for_each(|m| cluster.resume(m));
    cluster.agreed(HEAL_LIMIT).await;
    let load = Workload::start(&scene, 3, Routing::FailOver).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ran = load.stop().await;
    let report = calls.stop().await;
    judge("minority", &cluster, &scene, ran).await;
    report.expect_no_failure();
}

/// Within the time that a refusal may take.
pub fn expect_refusal(what: &str, outcome: Result<Option<Value>, Failed>) {
    let Err(failed) = outcome else { panic!("{what} was answered without a majority") };
    println!("minority: {what} was refused after {:?} by {}", failed.took, failed.failure);
    assert!(failed.is_refusal(), "{what} was not refused by the node: {failed:?}");
    assert!(failed.took < REFUSAL_LIMIT, "{what} was refused only after {:?}", failed.took);
}
