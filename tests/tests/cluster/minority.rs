//! One node of three is not the cluster: it refuses writes and reads with a clear error. The three keep
//! the audit log too, so agents' calls are refused as well, within their deadline, and nothing runs that
//! cannot be recorded. All is well once the others are back.

use std::time::{Duration, Instant};

use crate::{
    admin::Failed,
    cluster::{Cluster, HEAL_LIMIT, Member},
    history::Value,
    tool_calls::{ToolCalls, call, client as reqwest_client},
    verdict::judge,
    workload::{Routing, Scene, Workload},
};

/// A refusal may take this long: deadlines inside, but no hang.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);
/// A record is waited for so long, and a little slack.
const CALL_REFUSAL_LIMIT: Duration = Duration::from_secs(7);
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
    calls.stop().await.expect_no_failure();

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
        expect_refused_call(&cluster).await;
    }

    paused.iter().for_each(|m| cluster.resume(m));
    cluster.agreed(HEAL_LIMIT).await;
    let calls = ToolCalls::start(&cluster.place);
    let load = Workload::start(&scene, 3, Routing::FailOver).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ran = load.stop().await;
    let report = calls.stop().await;
    judge("minority", &cluster, &scene, ran).await;
    report.expect_no_failure();
}

fn expect_refusal(what: &str, outcome: Result<Option<Value>, Failed>) {
    let Err(failed) = outcome else { panic!("{what} was answered without a majority") };
    println!("minority: {what} was refused after {:?} by {}", failed.took, failed.failure);
    assert!(failed.is_refusal(), "{what} was not refused by the node: {failed:?}");
    assert!(failed.took < REFUSAL_LIMIT, "{what} was refused only after {:?}", failed.took);
}

/// A call that cannot be recorded is refused, in time, by its name.
async fn expect_refused_call(cluster: &Cluster) {
    let began = Instant::now();
    let refused = call(&reqwest_client(), &cluster.place).await.expect_err("a call ran without a record");
    let took = began.elapsed();
    println!("minority: a call was refused after {took:?}");
    assert!(refused.contains("PV-AUDIT-UNAVAILABLE"), "not for the audit log: {refused}");
    assert!(took < CALL_REFUSAL_LIMIT, "refused only after {took:?}");
}
