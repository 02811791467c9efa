//! A kill switch on three data-plane nodes: how soon it is active on each, past a staged release that holds
//! everything else back, and kept by a node that starts without a control plane.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Place},
    fleet::Fleet,
    harness::{modern, text},
    tool_calls::client,
};

/// For what must come, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// What is promised is one second on a machine that is not busy; this machine may be.
const PROMISED: Duration = Duration::from_secs(10);

/// Whether the node refuses by a switch; `None`: it answered neither with a result nor so.
async fn is_stopped(http: &reqwest::Client, node: &str, place: &Place) -> Option<bool> {
    let body = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
    let sent = http
        .post(node)
        .bearer_auth(&place.token)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "echo.echo")
        .json(&body)
        .timeout(SOON)
        .send();
    let answer: Value = sent.await.ok()?.json().await.ok()?;
    if answer["error"]["data"]["code"] == "PV-KILL-SWITCH" {
        return Some(true);
    }
    answer["result"]["content"].is_array().then_some(false)
}

/// Asks all nodes without a pause until each says `wanted`; how long each took since `began`.
async fn until(fleet: &Fleet, place: &Place, wanted: bool, began: Instant) -> Vec<Duration> {
    let asked = fleet.nodes.iter().map(|node| async move {
        let http = client();
        while is_stopped(&http, &node.mcp, place).await != Some(wanted) {
            assert!(began.elapsed() < SOON, "{} does not become {wanted}", node.name);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    });
    futures::future::join_all(asked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_switch_is_active_on_every_node_at_once_and_waits_for_no_release() {
    let Some(cluster) = Cluster::start().await else { return };
    let fleet = Fleet::join(&cluster, 3).await;
    let place = &cluster.place;
    until(&fleet, place, false, Instant::now()).await;

    // Everything else is held back from now on.
    let file = cluster.place.data.join("group.yaml");
    let group = "apiVersion: provost/v1\nkind: NodeGroup\nmetadata: { name: canary }\n\
                 spec: { nodes: ['nobody'], holdS: 3600, minCalls: 20 }\n---\n";
    let role = "apiVersion: provost/v1\nkind: Role\nmetadata: { name: held, tenant: acme }\nspec: {}\n";
    for text_of in [group, role] {
        std::fs::write(&file, text_of).unwrap();
        let applied = cluster.cli(&["apply", "-f", file.to_str().unwrap()]);
        assert!(applied.status.success(), "{}", text(&applied));
    }
    let held = |cluster: &Cluster| -> Value {
        let status: Value =
            serde_json::from_slice(&cluster.cli(&["cluster", "status", "--json"]).stdout).unwrap_or_default();
        status["release"].clone()
    };
    let released = held(&cluster)["released"].as_u64().unwrap();

    for round in ["first", "second"] {
        let on = cluster.cli(&["kill-switch", "on", "--plugin", "echo", "--reason", "drill", "--json"]);
        assert!(on.status.success(), "{}", text(&on));
        // From the acknowledgement on: a process of the command line needs its own time to start.
        let took = until(&fleet, place, true, Instant::now()).await;
        println!("kill switch, {round}: active on the three nodes {took:?} after it was acknowledged");
        assert!(took.iter().all(|took| *took < PROMISED), "{took:?}");
        let off = cluster.cli(&["kill-switch", "off", "--plugin", "echo"]);
        assert!(off.status.success(), "{}", text(&off));
        until(&fleet, place, false, Instant::now()).await;
    }
    assert_eq!(held(&cluster)["released"].as_u64().unwrap(), released, "a switch released what was held");

    // A node that was down when it was switched on refuses from its first call on.
    fleet.nodes[2].kill();
    let on = cluster.cli(&["kill-switch", "on", "--all", "--reason", "drill"]);
    assert!(on.status.success(), "{}", text(&on));
    fleet.nodes[2].start();
    fleet.nodes[2].listens().await;
    until(&fleet, place, true, Instant::now()).await;
    let off = cluster.cli(&["kill-switch", "off", "--all"]);
    assert!(off.status.success(), "{}", text(&off));
    until(&fleet, place, false, Instant::now()).await;
    fleet.stop().await;
}
