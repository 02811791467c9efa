//! MCP over WebSocket: the same calls, denials, limits and records as over HTTP.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::{
    harness::{Dev, call_tool, text},
    ws_client::{Socket, upgrade},
};

/// What the audit log has.
pub fn records(dev: &Dev, filter: &[&str]) -> Vec<Value> {
    let query = dev.cli(&[&["audit", "query", "--json"], filter].concat());
    assert!(query.status.success(), "{}", text(&query));
    let lines = String::from_utf8_lossy(&query.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].take()).collect()
}

pub fn phases(records: &[Value]) -> (usize, usize, usize) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_says_so_and_until_when() {
    let yaml = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
         apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: { type: agent }\n---\n\
         apiVersion: provost/v1\nkind: Role\nmetadata: { name: all, tenant: acme }\nspec: { rules: [ { tools: ['*'] } ] }\n---\n\
         apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: all, tenant: acme }\nspec: { role: all, principals: [bot] }\n---\n\
         apiVersion: provost/v1\nkind: Plugin\nmetadata: { name: two, tenant: acme }\nspec: { source: { builtin: { name: echo } } }\n---\n\
         apiVersion: provost/v1\nkind: Quota\nmetadata: { name: two, tenant: acme }\n\
         spec: { limit: 2, unit: calls, window: month, tools: ['two.*'] }\n";
    let dev = Dev::start(Some(yaml), &[]);
    let mut socket = Socket::open(&dev, "").await;
    for _ in 0..2 {
        let answer = socket.call("two.echo", json!({ "text": "x" })).await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    let answer = socket.call("two.echo", json!({ "text": "x" })).await;
    let data = &answer["error"]["data"];
    assert_eq!((&data["code"], &data["quota"]), (&json!("PV-QUOTA-EXCEEDED"), &json!("acme/two")), "{answer}");
    assert!(data["retryAfterMs"].as_u64().unwrap() > 0 && data["resetsAt"].is_string(), "{answer}");
    assert_eq!(phases(&records(&dev, &["--tool", "two.echo"])), (2, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_does_not_outlive_its_token() {
    let dev = Dev::start(None, &[]);
    let made = dev.cli(&["token", "create", "--principal", "ana", "--ttl", "6s", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let mut request = upgrade(&dev, "");
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    request.headers_mut().insert("authorization", HeaderValue::try_from(bearer).unwrap());
    let mut socket = Socket::connect(request).await;
    let id =
        socket.begin_modern("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } })).await;
    socket.until(|m| m["method"] == "notifications/subscriptions/acknowledged").await;
    tokio::time::sleep(std::time::Duration::from_millis(6_300)).await;
    // Each request brings the token anew, whatever the socket was opened with.
    let late = socket.call("echo.echo", json!({ "text": "late" })).await;
    assert_eq!(late["error"]["code"], 4010, "{late}");
    // And what has no end of its own ends, within one look at the token.
    let (code, reason) = socket.closed().await;
    assert!(code == 1008 && reason.starts_with("PV-WS-CREDENTIAL"), "{code} {reason}");
    assert!(socket.others.iter().all(|m| m["id"] != id || m["result"].is_object()), "{:?}", socket.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_only_where_that_is_served_and_a_policy_may_tell_the_transports_apart() {
    let yaml = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
         apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: { type: agent }\n---\n\
         apiVersion: provost/v1\nkind: Role\nmetadata: { name: all, tenant: acme }\nspec: { rules: [ { tools: ['*'] } ] }\n---\n\
         apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: all, tenant: acme }\nspec: { role: all, principals: [bot] }\n---\n\
         apiVersion: provost/v1\nkind: Plugin\nmetadata: { name: shy, tenant: acme }\nspec: { source: { builtin: { name: echo } } }\n---\n\
         apiVersion: provost/v1\nkind: Plugin\nmetadata: { name: echo, tenant: acme }\nspec: { source: { builtin: { name: echo } } }\n---\n\
         apiVersion: provost/v1\nkind: Policy\nmetadata: { name: shy, tenant: acme }\nspec:\n  cedar: |\n    \
         @id(\"not-over-sockets\")\n    \
         forbid (principal, action == Provost::Action::\"CallTool\", resource == Provost::Tool::\"shy.echo\")\n    \
         when { context.transport == \"ws\" };\n";
    let dev = Dev::start(Some(yaml), &["--anonymous", "acme"]);
    // What a page can send: an origin, and no token.
    let mut page = upgrade(&dev, "");
    page.headers_mut().remove("authorization");
    page.headers_mut().insert("origin", HeaderValue::from_static("http://localhost:5173"));
    let mut socket = Socket::connect(page).await;
    let arguments = json!({ "text": "x" });
    let answer = socket.call("echo.echo", arguments.clone()).await;
    assert!(answer["result"].is_object(), "{answer}");
    let denied = socket.call("shy.echo", arguments.clone()).await;
    assert_eq!(denied["error"]["data"]["code"], "PV-POLICY-DENIED", "{denied}");
    assert!(denied["error"]["message"].as_str().unwrap().contains("not-over-sockets"), "{denied}");
    let over_http = tokio::task::spawn_blocking(move || {
        let answer = call_tool(&dev, "shy.echo", arguments);
        (dev, answer)
    });
    let (dev, answer) = over_http.await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    let called = records(&dev, &["--tool", "echo.echo"]);
    assert_eq!(phases(&called), (1, 1, 0), "{called:?}");
    assert!(called.iter().all(|r| r["authenticated_by"] == "anonymous"), "{called:?}");
}
