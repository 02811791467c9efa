//! MCP over WebSocket: the same calls, denials, limits and records as over HTTP.

use serde_json::{Value, json};

use crate::{
    harness::{Dev, text},
    ws_client::Socket,
};

/// The records of a tool.
fn records(dev: &Dev, filter: &[&str]) -> Vec<Value> {
    let query = dev.cli(&[&["audit", "query", "--json"], filter].concat());
    assert!(query.status.success(), "{}", text(&query));
    let lines = String::from_utf8_lossy(&query.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].take()).collect()
}

fn phases(records: &[Value]) -> (usize, usize, usize) {
    let count = |phase: &str| records.iter().filter(|r| r["phase"] == phase).count();
    (count("intent"), count("outcome"), count("denied"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_eras_call_and_are_denied_on_one_socket_and_every_call_is_recorded() {
    let dev = Dev::start(None, &[]);
    let mut socket = Socket::legacy(&dev, "", json!({})).await;
    let listed = socket.request("tools/list", json!({})).await;
    assert!(listed["result"]["tools"].to_string().contains("\"sql.query\""), "{listed}");
    assert_eq!(socket.request("ping", json!({})).await["result"], json!({}));

    let query = |sql: &str| json!({ "name": "sql.query", "arguments": { "sql": sql } });
    let counted = socket.request("tools/call", query("SELECT count(*) AS n FROM customers")).await;
    assert!(counted["result"]["content"][0]["text"].as_str().unwrap().contains("\"n\""), "{counted}");
    assert!(counted["result"]["_meta"]["io.provost/audit"]["leafHash"].is_string(), "{counted}");
    let denied = socket.request("tools/call", query("DROP TABLE customers")).await;
    assert_eq!(denied["error"]["data"]["code"], "PV-POLICY-DENIED", "{denied}");

    // A session on the socket does not keep a client from the modern era.
    let discovered = socket.modern("server/discover", json!({})).await;
    assert_eq!(discovered["result"]["supportedVersions"][0], "2026-07-28", "{discovered}");
    let modern = socket.modern("tools/call", query("SELECT count(*) AS n FROM customers")).await;
    assert_eq!(modern["result"]["resultType"], "complete", "{modern}");
    let denied = socket.modern("tools/call", query("SELECT salary FROM employees")).await;
    assert_eq!(denied["error"]["data"]["code"], "PV-POLICY-DENIED", "{denied}");

    let found = records(&dev, &["--tool", "sql.query"]);
    assert_eq!(phases(&found), (2, 2, 2), "{found:?}");
    for record in &found {
        assert_eq!(record["network.transport"], "ws", "{record}");
        assert_eq!(record["client.address"], "127.0.0.1", "{record}");
    }
}
