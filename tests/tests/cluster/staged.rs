//! A change goes to a group of nodes first: held, let through, halted by what it does, taken back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    harness::{modern, post, text},
};

/// For what must come, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Nodes report what they do each 5 s, and it is noted each 5 s.
const NOTED: Duration = Duration::from_secs(12);
/// For what must not come.
const WATCHED: Duration = Duration::from_secs(3);
/// Enough to be judged by.
const CALLS: usize = 60;

fn apply(cluster: &Cluster, text_of: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, text_of).unwrap();
    let began = Instant::now();
    loop {
        let output = cluster.cli(&["apply", "-f", file.to_str().unwrap()]);
        if output.status.success() {
            return;
        }
        // A leader that is gone is replaced in a moment.
        assert!(began.elapsed() < SOON, "{}", text(&output));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn group(nodes: &str) -> String {
    format!(
        "apiVersion: provost/v1\nkind: NodeGroup\nmetadata: {{ name: canary }}\n\
         spec: {{ nodes: ['{nodes}'], holdS: 3600, minCalls: 20 }}\n"
    )
}

/// A policy that denies the tool.
fn ban(tool: &str) -> String {
    format!(
        "apiVersion: provost/v1\nkind: Policy\nmetadata: {{ name: ban-{}, tenant: acme }}\n\
         spec:\n  cedar: 'forbid (principal, action, resource == Provost::Tool::\"{tool}\");'\n",
        tool.replace('.', "-")
    )
}

fn is_allowed(cluster: &Cluster, tool: &str) -> bool {
    let place = &cluster.place;
    let arguments = if tool == "echo.echo" { json!({ "text": "x" }) } else { json!({}) };
    let body = modern("tools/call", json!({ "name": tool, "arguments": arguments }));
    let answer = tokio::task::block_in_place(|| post(&place.mcp, &place.token, &body)).1;
    answer["result"]["content"].is_array() && answer["result"]["isError"] != true
}

fn until(cluster: &Cluster, tool: &str, wanted: bool) {
    let began = Instant::now();
    while is_allowed(cluster, tool) != wanted {
        assert!(began.elapsed() < SOON, "allowed is not {wanted}: {}", status(cluster, None));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// By the word of the relay's node, or of a member.
fn status(cluster: &Cluster, admin: Option<&str>) -> Value {
    let mut args = vec!["cluster", "status", "--json"];
    let token = cluster.place.admin_token.clone();
    if let Some(admin) = admin {
        args.extend(["--admin", admin, "--admin-token", &token]);
    }
    serde_json::from_slice(&cluster.cli(&args).stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_held_for_others_and_halted_by_what_it_does_to_the_group() {
    let Some(cluster) = Cluster::start().await else { return };

    assert!(is_allowed(&cluster, "time.now") && is_allowed(&cluster, "echo.echo"));

    // The only node is none of the group: it waits until somebody lets the change through.
    apply(&cluster, &group("nobody"));
    apply(&cluster, &ban("time.now"));
    let watched = Instant::now();
    while watched.elapsed() < WATCHED {
        assert!(is_allowed(&cluster, "time.now"), "a change went past the group");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for member in cluster.place.members() {
        let status = status(&cluster, Some(&member.admin));
        let node = &status["subscribers"][0];
        assert_eq!((&node["node"], &node["stage"]), (&json!("dev"), &json!("held")), "node {}: {status}", member.id);
        assert_eq!(status["release"]["waits_for"], "no node of the group is connected", "{status}");
        let measured = status["members"].as_array().unwrap().iter().filter(|m| m["membership"] == "voter");
        let applied: Vec<u64> = measured.map(|m| m["applied"].as_u64().unwrap()).collect();
        assert!(applied.len() == 3 && applied.iter().all(|n| *n > 0), "node {}: {status}", member.id);
    }
    let output = cluster.cli(&["cluster", "release"]);
    assert!(output.status.success(), "{}", text(&output));
    until(&cluster, "time.now", false);

    // Now it is the group. What it does under a change is compared with what it did before.
    apply(&cluster, &group("de*"));
    assert!(cluster.cli(&["cluster", "release"]).status.success());
    for _ in 0..CALLS {
        assert!(is_allowed(&cluster, "echo.echo"));
    }
    tokio::time::sleep(NOTED).await;
    apply(&cluster, &ban("echo.echo"));
    until(&cluster, "echo.echo", false);
    for _ in 0..CALLS {
        is_allowed(&cluster, "echo.echo");
    }
    // Whoever leads next decides the same.
    let leader = cluster.leader().await;
    cluster.kill(&leader);
    until(&cluster, "echo.echo", true);
    let after = status(&cluster, None);
    let (release, node) = (&after["release"], &after["subscribers"][0]);
    assert!(release["halted"].as_u64() > release["released"].as_u64(), "{after}");
    assert!(release["reasons"][0].as_str().unwrap().contains("of 1000 calls were denied"), "{after}");
    assert_eq!((&node["stage"], &node["revision"]), (&json!("returned"), &release["released"]), "{after}");
    let shown = text(&cluster.cli(&["cluster", "status"]));
    assert!(shown.contains("was halted"), "{shown}");

    // The next change begins a new release, with all that is wanted.
    apply(&cluster, &ban("sql.query"));
    until(&cluster, "echo.echo", false);
    println!("staged: halted at {} by {}", release["halted"], release["reasons"][0]);
}
