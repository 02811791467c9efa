//! A data-plane node that is cut off uses its grants for as long as it may, and no longer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, HEAL_LIMIT},
    harness::{modern, post, text},
};

/// Seconds; an election and a slow machine fit into it.
const MAX_AGE: &str = "10";
/// Until the denials begin, at the latest.
const DENIAL_LIMIT: Duration = Duration::from_secs(60);

fn ask(cluster: &Cluster, method: &str, params: Value) -> String {
    let place = &cluster.place;
    // The harness has a runtime of its own.
    tokio::task::block_in_place(|| post(&place.mcp, &place.token, &modern(method, params)).1.to_string())
}

fn call(cluster: &Cluster) -> Result<(), String> {
    let answer = ask(cluster, "tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
    if answer.contains("PV-") { Err(answer) } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_that_nobody_confirms_end_and_come_back_with_the_control_plane() {
    let Some(cluster) = Cluster::start_env(&[("PROVOST_GRANTS_MAX_AGE_SECONDS", MAX_AGE)]).await else { return };
    call(&cluster).expect("a node that has just started denies nothing");
    let members = cluster.place.members();
    members.iter().for_each(|m| cluster.pause(m));
    call(&cluster).expect("a node that has just lost its control plane denies nothing");
    let cut_off = Instant::now();
    let denial = loop {
        if let Err(denial) = call(&cluster) {
            break denial;
        }
        assert!(cut_off.elapsed() < DENIAL_LIMIT, "grants outlive their maximum age");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!("stale: denied {:?} after the cut", cut_off.elapsed());
    assert!(denial.contains("PV-NODE-STALE") && denial.contains("grants hold for 10 s"), "{denial}");
    let tools = ask(&cluster, "tools/list", json!({}));
    assert!(tools.contains("echo.echo"), "what needs no grant is served at any age: {tools}");
    let recorded = text(&cluster.cli(&["audit", "query", "--status", "denied", "--json"]));
    assert!(recorded.contains("PV-NODE-STALE"), "the denial is not in the audit log: {recorded}");

    members.iter().for_each(|m| cluster.resume(m));
    let back = Instant::now();
    while let Err(denial) = call(&cluster) {
        assert!(denial.contains("PV-NODE-STALE"), "{denial}");
        assert!(back.elapsed() < HEAL_LIMIT, "the control plane is back and calls are still denied");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
