//! MCP 2025-11-25 and earlier.

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use provost_types::Phase;
use serde_json::{Value, json};

use crate::{
    plane::CARD,
    world::{LEGACY, World, read, read_until},
};

#[tokio::test]
async fn versions_are_negotiated() {
    let world = World::new();
    let table = [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1.0", "2025-11-25"),
    ];
    for (asked, given) in table {
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": asked, "capabilities": {}, "clientInfo": {} } });
        let said = world.post(&[], body.to_string()).await;
        let result = &said.json()["result"];
        assert_eq!(result["protocolVersion"], json!(given));
        assert_eq!(result["serverInfo"]["name"], json!("provost"));
        assert!(result["capabilities"]["tools"].is_object());
        assert!(result["capabilities"].get("extensions").is_none());
        let id = said.header("mcp-session-id");
        assert!(!id.is_empty() && id.bytes().all(|b| (0x21..=0x7E).contains(&b)));
    }
}

#[tokio::test]
async fn a_session_serves() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let ready = session.post(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    assert_eq!(ready.status, StatusCode::ACCEPTED);
    assert_eq!(session.call("ping", json!({})).await.json()["result"], json!({}));
    let level = session.call("logging/setLevel", json!({ "level": "warning" })).await;
    assert_eq!(level.json()["result"], json!({}), "acknowledgements stay empty");
    let bad = session.call("logging/setLevel", json!({ "level": "loud" })).await;
    assert_eq!(bad.error_code(), -32602);
    let result = session.call("tools/call", json!({ "name": "echo" })).await.json()["result"].take();
    assert!(result.get("resultType").is_none());
    assert!(result["_meta"]["io.provost/audit"]["index"].is_u64());
    let listed = session.call("tools/list", json!({})).await.json()["result"].take();
    assert!(listed.get("cacheScope").is_none() && listed.get("ttlMs").is_none());
    // The level filters log messages and reaches modern upstreams.
    let logged = session.call("tools/call", json!({ "name": "log" })).await;
    let levels: Vec<_> =
        logged.events().iter().filter_map(|e| e["params"]["level"].as_str().map(str::to_owned)).collect();
    assert_eq!(levels, ["warning"]);
    let meta = session.call("tools/call", json!({ "name": "meta" })).await;
    assert!(meta.text.contains("io.modelcontextprotocol/logLevel"));
    assert_eq!(session.call("server/discover", json!({})).await.error_code(), -32601);
    let missing = session.call("resources/read", json!({ "uri": "test://absent" })).await;
    assert_eq!(missing.error_code(), -32002);
}

#[tokio::test]
async fn a_refusal_before_the_call_records_a_workflow_as_guards_leave_it_and_none_of_somebody_unknown() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let (workflow, method) = (format!("w-{CARD}"), format!("tools/{CARD}"));
    let post = async |bearer: &str, method: &str| {
        let bearer = format!("Bearer {bearer}");
        let body = json!({ "jsonrpc": "2.0", "id": 5, "method": method }).to_string();
        let headers =
            [("mcp-session-id", &*session.id), ("authorization", &*bearer), ("x-provost-workflow", &*workflow)];
        world.post(&headers, body).await.status.as_u16()
    };
    assert_eq!(post("token-bob", "tools/list").await, 404);
    let foreign = world.plane.denied_with("PV-MCP-SESSION-FOREIGN").await;
    assert_eq!((foreign.why.workflow.as_deref(), &*foreign.what.method), (Some("w-****"), "tools/list"));
    assert_eq!(post("wrong", &method).await, 401);
    let unknown = world.plane.denied_with("PV-AUTH-UNKNOWN").await;
    assert_eq!((unknown.why.workflow, &*unknown.what.method), (None, "unknown"));
}

#[tokio::test]
async fn session_ids_that_are_not_good() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let list = r#"{"jsonrpc":"2.0","id":5,"method":"tools/list"}"#;
    let with = |id: &str, bearer: &str| {
        let (id, bearer) = (id.to_owned(), format!("Bearer {bearer}"));
        let world = &world;
        async move {
            let headers = [("mcp-session-id", id.as_str()), ("authorization", bearer.as_str())];
            world.post(&headers, list).await.status.as_u16()
        }
    };
    let mut flipped = session.id.clone().into_bytes();
    flipped[40] = if flipped[40] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();

    assert_eq!(with(&session.id, "token-alice").await, 200);
    assert_eq!(with(&flipped, "token-alice").await, 404, "tampered");
    assert_eq!(with("made-up", "token-alice").await, 404, "made up");
    assert_eq!(with(&session.id, "token-bob").await, 404, "possession is not authentication");
    let foreign = world.plane.denied_with("PV-MCP-SESSION-FOREIGN").await;
    assert_eq!(foreign.who.principal, "bob");
    assert_eq!(with(&session.id, "wrong").await, 401);
    let elsewhere = world
        .send(
            Method::POST,
            "/mcp/sql",
            &[
                ("mcp-session-id", &session.id),
                ("authorization", &session.bearer),
                ("content-type", "application/json"),
            ],
            list,
        )
        .await;
    assert_eq!(elsewhere.status.as_u16(), 404, "another route's");

    // Any node with the key serves it.
    let sibling = world.sibling();
    let headers = [("mcp-session-id", session.id.as_str()), ("authorization", session.bearer.as_str())];
    assert_eq!(sibling.post(&headers, list).await.status.as_u16(), 200);

    world.plane.advance_s(24 * 3600);
    assert_eq!(with(&session.id, "token-alice").await, 404, "expired");
}

#[tokio::test]
async fn a_deleted_session_is_gone() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let said = world.send(Method::DELETE, "/mcp", &session.headers(), "").await;
    assert_eq!(said.status, StatusCode::NO_CONTENT);
    assert_eq!(session.call("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(session.get("").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_a_session() {
    let world = World::new();
    let body = |method: &str, name: &str| {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "name": name } }).to_string()
    };
    let said = world.post(&[], body("tools/call", "echo")).await;
    assert_eq!(said.status, StatusCode::OK);
    // Nobody could bring the answer back.
    let said = world.post(&[], body("tools/call", "ask")).await;
    assert_eq!(said.pv(), "PV-TEST-ASK");
    assert_eq!(world.send(Method::GET, "/mcp", &[], "").await.status.as_u16(), 405);
    assert_eq!(world.send(Method::DELETE, "/mcp", &[], "").await.status.as_u16(), 405);
    let lost = r#"{"jsonrpc":"2.0","id":"x","result":{}}"#;
    assert_eq!(world.post(&[], lost).await.pv(), "PV-MCP-SESSION-REQUIRED");
}

#[tokio::test]
async fn the_client_is_asked_over_the_calls_own_stream() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "ask" } });
    let mut stream = session.begin(call).await.into_body();
    let (text, asked) = read_until(&mut stream, |v| v["method"] == json!("elicitation/create")).await;
    assert!(text.starts_with("id: 1-0-"), "2025-11-25 streams open with a priming event");
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {
        "action": "accept", "content": { "name": "Ada" } } });
    // Another principal's session cannot answer for this one.
    let other = world.session("token-bob").await;
    assert_eq!(other.post(answer.clone()).await.status, StatusCode::ACCEPTED);
    assert_eq!(session.post(answer).await.status, StatusCode::ACCEPTED);
    let (_, answered) = read_until(&mut stream, |v| v["id"] == json!(4)).await;
    assert_eq!(answered["result"]["content"][0]["text"], json!("Hello, Ada! []"));
    assert!(stream.frame().await.is_none());
}

#[tokio::test]
async fn a_client_writes_no_state_of_executors() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let forged = json!({ "user_name": { "action": "accept", "content": { "name": "Eve" } } });
    let params = json!({ "name": "ask", "requestState": "provost-connect:{}", "inputResponses": forged });
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": params });
    let mut stream = session.begin(call).await.into_body();
    let (_, asked) = read_until(&mut stream, |v| v["method"] == json!("elicitation/create")).await;
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {
        "action": "accept", "content": { "name": "Ada" } } });
    assert_eq!(session.post(answer).await.status, StatusCode::ACCEPTED);
    let (_, answered) = read_until(&mut stream, |v| v["id"] == json!(4)).await;
    assert_eq!(answered["result"]["content"][0]["text"], json!("Hello, Ada! []"));
}

#[tokio::test]
async fn a_client_that_refuses_or_cannot_be_asked() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "ask" } });
    let mut stream = session.begin(call).await.into_body();
    let (_, asked) = read_until(&mut stream, |v| v["method"] == json!("elicitation/create")).await;
    let refusal = json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -1, "message": "no" } });
    session.post(refusal).await;
    let (_, answered) = read_until(&mut stream, |v| v["id"] == json!(4)).await;
    assert_eq!(answered["error"]["data"]["code"], json!("PV-TEST-ASK"));
}

#[tokio::test]
async fn cancellation_is_said_not_guessed() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let call =
        |id: u32, name: &str| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": name } });
    let waiting = session.begin(call(7, "wait"));
    let cancelling = async {
        // The call must be under way before it is cancelled.
        while world.plane.recorded(Phase::Intent, "wait").is_empty() {
            tokio::task::yield_now().await;
        }
        let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": { "requestId": 7 } });
        session.post(cancel).await
    };
    let (response, cancelled) = tokio::join!(waiting, cancelling);
    assert_eq!(cancelled.status, StatusCode::ACCEPTED);
    assert_eq!(read(response).await.pv(), "PV-CALL-CANCELLED");
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_again() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "gate" } });
    let mut stream = session.begin(call).await.into_body();
    let (text, _) = read_until(&mut stream, |v| v["method"] == json!("notifications/progress")).await;
    assert!(text.contains("id: 1-1-"));
    drop(stream);
    // Legacy: a disconnect is no cancellation.
    world.plane.changes.send("go").unwrap();
    let mut stream = session.get("1-1").await.into_body();
    let (text, answered) = read_until(&mut stream, |v| v["id"] == json!(4)).await;
    assert_eq!(answered["result"]["content"][0]["text"], json!("through"));
    assert!(!text.contains("notifications/progress"), "only what was missed");
}

#[tokio::test]
async fn the_sessions_own_stream() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let response = session.get("").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body();
    assert_eq!(world.plane.recorded_method("subscriptions/listen", Phase::Intent).len(), 1);
    // Whoever has an answer is told of what changes from then on.
    let listeners = world.plane.changes.send("notifications/tools/list_changed").expect("nobody listens yet");
    assert_eq!(listeners, 1);
    let (_, heard) = read_until(&mut stream, |v| v["method"] == json!("notifications/tools/list_changed")).await;
    assert_eq!(heard["jsonrpc"], json!("2.0"));
    for _ in 0..3 {
        assert_eq!(session.get("").await.status(), StatusCode::OK);
    }
    // A stream that nobody reads any more still counts until its grace is over.
    assert_eq!(session.get("").await.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_old_client_gets_no_priming_event() {
    let world = World::new();
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {} } });
    let id = world.post(&[], body.to_string()).await.header("mcp-session-id").to_owned();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "slow_progress" } });
    let said = world.post(&[("mcp-session-id", &id)], call.to_string()).await;
    assert!(said.text.starts_with("id: 1-1-"), "{}", said.text);
}

#[tokio::test]
async fn an_id_in_use_is_refused() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "gate" } });
    let mut stream = session.begin(call.clone()).await.into_body();
    read_until(&mut stream, |v| v["method"] == json!("notifications/progress")).await;
    assert_eq!(session.post(call).await.pv(), "PV-MCP-SESSION-BUSY");
    world.plane.changes.send("go").unwrap();
    read_until(&mut stream, |v: &Value| v["id"] == json!(4)).await;
}

#[tokio::test]
async fn headers_of_a_modern_client_do_not_make_a_session_modern() {
    let world = World::new();
    let session = world.session("token-alice").await;
    let headers = [
        ("mcp-session-id", session.id.as_str()),
        ("authorization", session.bearer.as_str()),
        ("mcp-protocol-version", LEGACY),
    ];
    let said = world.post(&headers, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    assert!(said.json()["result"]["tools"].is_array());
}
