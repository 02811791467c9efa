//! MCP over QUIC: what a good client sees.

use std::time::Duration;

use provost_data_serve::QuicLimits;
use provost_types::{CallStatus, Phase};
use quinn::{ConnectionError, VarInt};
use serde_json::{Value, json};

use crate::{
    quic_client::{ALICE, Client, End, PATIENCE, call, modern, pv, serve},
    world::LEGACY,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_both_eras_are_answered_each_on_its_stream() {
    let node = serve(QuicLimits::DEFAULT).await;
    let client = node.connect().await;
    let listed = client.modern("tools/list", json!({})).await;
    assert!(listed["result"]["tools"].is_array() && listed["result"]["resultType"] == "complete", "{listed}");
    let echoed = client.modern("tools/call", json!({ "name": "echo", "arguments": { "a": 1 } })).await;
    assert!(echoed["id"] == 9 && echoed.to_string().contains("a"), "{echoed}");
    let event = node.served.wait_for(Phase::Outcome, "echo").await;
    assert_eq!((event.what.transport.as_str(), event.status), ("quic", Some(CallStatus::Ok)));
    assert_eq!(event.who.client_address.as_deref(), Some("127.0.0.1"));
    // Notifications come before the answer, and the server ends the stream.
    let mut log = modern(
        "tools/call",
        json!({ "name": "log", "arguments": {},
        "_meta": { "io.modelcontextprotocol/logLevel": "debug" } }),
    );
    log["id"] = json!("x");
    let said = client.ask(&log).await;
    assert!(said.len() > 1 && said[0]["method"].is_string() && said.last().unwrap()["id"] == "x", "{said:?}");
    // Without a session, as over HTTP.
    let pong = client.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert_eq!(pong, [json!({ "jsonrpc": "2.0", "id": 1, "result": {} })]);
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_session_is_the_connection_and_its_questions_come_on_the_calls_stream() {
    let node = serve(QuicLimits::DEFAULT).await;
    let client = node.connect().await;
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": LEGACY, "capabilities": { "elicitation": {} },
        "clientInfo": { "name": "test", "version": "1" } } });
    let opened = client.ask(&initialize).await;
    assert_eq!(opened[0]["result"]["protocolVersion"], LEGACY, "{opened:?}");
    let again = client.ask(&initialize).await;
    assert_eq!(pv(&again[0]), "PV-QUIC-SESSION-OPEN", "{again:?}");

    let ask = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "ask", "arguments": {} } });
    let mut stream = client.open(&[ALICE, &ask.to_string()]).await;
    let asked = stream.line().await.unwrap();
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    let answer =
        json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "accept", "content": { "name": "Ada" } } });
    stream.send.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    let said = stream.rest().await;
    assert!(said.last().unwrap()["result"].to_string().contains("Hello, Ada!"), "{said:?}");

    // The session is its caller's, at its endpoint.
    for head in
        [r#"{"authorization":"Bearer token-bob"}"#, r#"{"authorization":"Bearer token-alice","endpoint":"/mcp/sql"}"#]
    {
        let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }).to_string();
        let said = client.open(&[head, &list]).await.rest().await;
        assert_eq!(pv(&said[0]), "PV-MCP-SESSION-UNKNOWN", "{said:?}");
    }
    let foreign = node.served.world.plane.denied_with("PV-MCP-SESSION-FOREIGN").await;
    assert_eq!(foreign.what.transport, "quic");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_or_stopped_is_a_call_that_is_cancelled_and_fin_is_not() {
    let node = serve(QuicLimits::DEFAULT).await;
    for how in ["reset", "stop", "close"] {
        let client = node.connect().await;
        node.served.world.plane.events.lock().clear();
        let mut stream = client.open(&[ALICE, &call("wait")]).await;
        node.served.wait_for(Phase::Intent, "wait").await;
        match how {
            "reset" => stream.send.reset(VarInt::from_u32(1)).unwrap(),
            "stop" => stream.recv.stop(VarInt::from_u32(1)).unwrap(),
            _ => client.connection.close(VarInt::from_u32(0), b""),
        }
        let outcome = node.served.wait_for(Phase::Outcome, "wait").await;
        assert_eq!(outcome.status, Some(CallStatus::Cancelled), "{how}");
        if how == "reset" {
            assert_eq!(stream.line().await, Err(End::Reset(1)));
        }
    }
    let client = node.connect().await;
    let mut stream = client.open(&[ALICE, &call("gate")]).await;
    stream.send.finish().unwrap();
    node.served.wait_for(Phase::Intent, "gate").await;
    let plane = node.served.world.plane.clone();
    while plane.recorded(Phase::Outcome, "gate").is_empty() {
        let _ = plane.changes.send("go");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = stream.rest().await;
    assert!(said.last().unwrap()["result"].is_object(), "{said:?}");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_call_holds_no_other_one_up() {
    let node = serve(QuicLimits::DEFAULT).await;
    let client = node.connect().await;
    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(client.open(&[ALICE, &call("wait")]).await);
    }
    let echoed = client.modern("tools/call", json!({ "name": "echo", "arguments": {} })).await;
    assert!(echoed["result"].is_object(), "{echoed}");
    drop(waiting);
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_moves_with_its_client() {
    let node = serve(QuicLimits::DEFAULT).await;
    let endpoint = node.endpoint(b"mcp/1");
    let client = Client::connect(&endpoint, &node).await;
    assert!(client.modern("tools/list", json!({})).await["result"].is_object());
    let before = endpoint.local_addr().unwrap();
    endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    assert_ne!(endpoint.local_addr().unwrap(), before);
    let listed = tokio::time::timeout(PATIENCE, client.modern("tools/list", json!({}))).await.expect("moved");
    assert!(listed["result"].is_object(), "{listed}");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_subscriptions_lets_calls_end_and_says_goodbye() {
    let node = serve(QuicLimits::DEFAULT).await;
    let client = node.connect().await;
    let listen = modern("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let mut events = client.open(&[ALICE, &listen.to_string()]).await;
    let first = events.line().await.unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    let mut running = client.open(&[ALICE, &call("gate")]).await;
    node.served.wait_for(Phase::Intent, "gate").await;
    node.served.begin_stop();
    let last = events.rest().await.pop().expect("the subscription's answer");
    assert_eq!(last["id"], 9, "{last}");
    let late = client.open(&[ALICE, &call("echo")]).await.rest().await;
    assert_eq!(pv(&late[0]), "PV-QUIC-DRAINING", "{late:?}");
    let plane = node.served.world.plane.clone();
    while plane.recorded(Phase::Outcome, "gate").is_empty() {
        let _ = plane.changes.send("go");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(running.rest().await.last().unwrap()["result"].is_object());
    let closed = tokio::time::timeout(PATIENCE, client.connection.closed()).await.expect("closed");
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    assert_eq!(close.error_code, VarInt::from_u32(2));
    assert!(close.reason.starts_with(b"PV-QUIC-DRAINING"), "{close:?}");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_and_one_with_a_call_in_flight_is_not() {
    let idle = Duration::from_millis(400);
    let node = serve(QuicLimits { idle, ..QuicLimits::DEFAULT }).await;
    let (busy, bored) = (node.connect().await, node.connect().await);
    let mut running = busy.open(&[ALICE, &call("gate")]).await;
    let closed = tokio::time::timeout(PATIENCE, bored.connection.closed()).await.expect("closed");
    assert!(closed.to_string().contains("PV-QUIC-IDLE"), "{closed}");
    tokio::time::sleep(idle * 2).await;
    assert!(busy.connection.close_reason().is_none());
    let plane = node.served.world.plane.clone();
    while plane.recorded(Phase::Outcome, "gate").is_empty() {
        let _ = plane.changes.send("go");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said: Vec<Value> = running.rest().await;
    assert!(said.last().unwrap()["result"].is_object(), "{said:?}");
    node.served.stop().await;
}
