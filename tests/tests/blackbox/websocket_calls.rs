//! Many calls on one socket: in any order, with what a server says meanwhile, cancelled, drained.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::{Dev, Process, STOP_LIMIT, text, upstream_yaml},
    ws_client::Socket,
};

/// How long a record or an upstream may take to show what happened.
const SHOW_LIMIT: Duration = Duration::from_secs(60);

fn start(era: &str) -> (Process, Dev) {
    let upstream = Process::everything(era);
    let yaml = upstream_yaml(&upstream.url).replace("timeoutMs: 5000", "timeoutMs: 60000");
    let dev = Dev::start(Some(&yaml), &[]);
    (upstream, dev)
}

fn outcomes(dev: &Dev, tool: &str) -> Vec<Value> {
    let query = dev.cli(&["audit", "query", "--json", "--tool", tool]);
    assert!(query.status.success(), "{}", text(&query));
    let lines = String::from_utf8_lossy(&query.stdout).into_owned();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].take());
    records.filter(|r| r["phase"] == "outcome").collect()
}

/// Waits until a tool has so many outcomes.
async fn wait_for(dev: &Dev, tool: &str, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let found = outcomes(dev, tool);
        if found.len() >= count {
            return found;
        }
        assert!(began.elapsed() < SHOW_LIMIT, "{tool} has {} outcomes: {found:?}", found.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a call of that revision is past its intent.
async fn wait_for_intent(dev: &Dev, tool: &str, version: &str) {
    let began = Instant::now();
    while !text(&dev.cli(&["audit", "query", "--json", "--tool", tool])).contains(version) {
        assert!(began.elapsed() < SHOW_LIMIT, "no intent of {tool} in {version}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until so many calls of `slow` have begun upstream: what ends before that is cancelled here alone.
async fn wait_for_begun(socket: &mut Socket, count: u64) {
    let began = Instant::now();
    while first_text(&socket.call("up.count_begun", json!({})).await).parse::<u64>().unwrap() < count {
        assert!(began.elapsed() < SHOW_LIMIT, "fewer than {count} calls have begun upstream");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn first_text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_run_side_by_side_and_answers_come_as_they_are_ready() {
    let (_upstream, dev) = start("modern");
    let mut socket = Socket::open(&dev, "").await;
    let slow = socket.begin_modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": 6_000 } })).await;
    // An id that is in flight is no id for another call.
    let again = json!({ "jsonrpc": "2.0", "id": slow, "method": "ping" });
    socket.send(again).await;
    let busy = socket.answer(slow).await;
    assert_eq!(busy["error"]["data"]["code"], "PV-MCP-SESSION-BUSY", "{busy}");
    let mut quick = Vec::new();
    for _ in 0..20 {
        quick.push(socket.begin_modern("tools/call", json!({ "name": "up.test_simple_text", "arguments": {} })).await);
    }
    let mut order = Vec::new();
    while order.len() < 21 {
        let answer = socket.until(|m| m.get("method").is_none()).await;
        assert!(answer["result"].is_object(), "{answer}");
        order.push(answer["id"].as_u64().unwrap());
    }
    assert_eq!(order.last(), Some(&slow), "the slow call did not let the others pass: {order:?}");
    order.sort_unstable();
    let all: Vec<u64> = std::iter::once(slow).chain(quick).collect();
    assert_eq!(order, all, "an answer is missing or came twice");
    assert_eq!(outcomes(&dev, "up.test_simple_text").len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_comes_before_the_answer_in_both_eras() {
    let (_upstream, dev) = start("legacy");
    let mut socket = Socket::legacy(&dev, "", json!({})).await;
    for era in ["legacy", "modern"] {
        let mut params = json!({ "name": "up.test_tool_with_progress", "arguments": {} });
        let id = if era == "legacy" {
            params["_meta"] = json!({ "progressToken": "t" });
            socket.begin("tools/call", params).await
        } else {
            let mut message = crate::harness::modern("tools/call", params);
            message["params"]["_meta"]["progressToken"] = json!("t");
            message["id"] = json!(7);
            socket.send(message).await;
            7
        };
        let answer = socket.answer(id).await;
        assert_eq!(first_text(&answer), "Progress completed", "{era}: {answer}");
        let seen: Vec<Value> = std::mem::take(&mut socket.others)
            .iter()
            .filter(|m| m["method"] == "notifications/progress" && m["params"]["progressToken"] == "t")
            .map(|m| m["params"]["progress"].clone())
            .collect();
        let seen: Vec<f64> = seen.iter().filter_map(Value::as_f64).collect();
        assert_eq!(seen, [0.0, 50.0, 100.0], "{era}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_and_a_closed_socket_stop_the_work_and_are_recorded() {
    for era in ["legacy", "modern"] {
        let (_upstream, dev) = start(era);
        let mut socket = Socket::open(&dev, "").await;
        let slow = json!({ "name": "up.slow", "arguments": { "ms": 60_000 } });
        let id = socket.begin_modern("tools/call", slow.clone()).await;
        wait_for_intent(&dev, "up.slow", "2026-07-28").await;
        wait_for_begun(&mut socket, 1).await;
        let cancelled = json!({ "requestId": id, "reason": "no need" });
        socket.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled })).await;
        let found = wait_for(&dev, "up.slow", 1).await;
        assert_eq!(found[0]["status"], "cancelled", "{era}: {}", found[0]);
        // It gets no answer, and the socket is as good as before.
        let counted = socket.call("up.count_cancelled", json!({})).await;
        assert!(socket.others.is_empty(), "{era}: {:?}", socket.others);
        let before: u64 = first_text(&counted).parse().unwrap();

        let mut leaving = Socket::legacy(&dev, "", json!({})).await;
        leaving.begin("tools/call", slow).await;
        wait_for_intent(&dev, "up.slow", "2025-11-25").await;
        wait_for_begun(&mut socket, 2).await;
        leaving.frame(Message::Close(None)).await;
        let found = wait_for(&dev, "up.slow", 2).await;
        assert!(found.iter().all(|r| r["status"] == "cancelled"), "{era}: {found:?}");
        let began = Instant::now();
        while first_text(&socket.call("up.count_cancelled", json!({})).await).parse::<u64>().unwrap() <= before {
            assert!(began.elapsed() < SHOW_LIMIT, "{era}: the upstream works on for a client that is gone");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_client_is_asked_over_its_socket_and_a_modern_one_by_the_result() {
    let (_upstream, dev) = start("legacy");
    let asked = json!({ "name": "up.test_elicitation", "arguments": { "message": "Who?" } });
    let form = json!({ "action": "accept", "content": { "username": "ada", "email": "ada@example.com" } });
    let mut socket = Socket::legacy(&dev, "", json!({ "elicitation": {} })).await;
    let id = socket.begin("tools/call", asked.clone()).await;
    let question = socket.until(|m| m["method"] == "elicitation/create").await;
    socket.send(json!({ "jsonrpc": "2.0", "id": question["id"], "result": form })).await;
    let answer = socket.answer(id).await;
    assert!(first_text(&answer).contains("ada@example.com"), "{answer}");

    let mut message = crate::harness::modern("tools/call", asked);
    message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": {} });
    socket.send(message.clone()).await;
    let required = socket.answer(1).await;
    assert_eq!(required["result"]["resultType"], "input_required", "{required}");
    let (key, _) = required["result"]["inputRequests"].as_object().unwrap().iter().next().unwrap();
    message["id"] = json!(2);
    message["params"]["requestState"] = required["result"]["requestState"].clone();
    message["params"]["inputResponses"] = json!({ key.as_str(): form });
    // The state is the caller's, not the socket's.
    let mut other = Socket::open(&dev, "").await;
    other.send(message).await;
    let answer = other.answer(2).await;
    assert!(first_text(&answer).contains("ada@example.com"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_heard_by_subscription_and_by_session() {
    let (_upstream, dev) = start("modern");
    let mut session = Socket::legacy(&dev, "", json!({})).await;
    let mut socket = Socket::open(&dev, "").await;
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let id = socket.begin_modern("subscriptions/listen", wanted).await;
    let tagged = |m: &Value| m["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == id;
    let first = socket.until(|m| m.get("method").is_some()).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    assert!(tagged(&first), "{first}");
    // Again until it is heard: the session's own stream opens in its own time.
    let began = Instant::now();
    let mut heard = None;
    while heard.is_none() {
        assert!(began.elapsed() < SHOW_LIMIT, "the session heard nothing");
        socket.call("up.test_trigger_tool_change", json!({})).await;
        session.request("ping", json!({})).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        session.request("ping", json!({})).await;
        heard = session.others.iter().find(|m| m["method"] == "notifications/tools/list_changed").cloned();
    }
    let changed = |m: &&Value| m["method"] == "notifications/tools/list_changed";
    let seen: Vec<&Value> = socket.others.iter().filter(changed).collect();
    assert!(!seen.is_empty() && seen.iter().all(|m| tagged(m)), "{:?}", socket.others);
    assert!(heard.is_some_and(|m| m["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].is_null()));
    // Cancelled, it says nothing more, its answer included.
    socket.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } })).await;
    socket.modern("tools/list", json!({})).await;
    socket.others.clear();
    socket.call("up.test_trigger_tool_change", json!({})).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    socket.modern("tools/list", json!({})).await;
    assert!(socket.others.is_empty(), "{:?}", socket.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_the_call_in_flight_end_and_says_that_the_node_goes() {
    let (_upstream, mut dev) = start("modern");
    let mut socket = Socket::open(&dev, "").await;
    let id = socket.begin_modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": 1_000 } })).await;
    wait_for_intent(&dev, "up.slow", "2026-07-28").await;
    let stopped = std::thread::spawn(move || {
        let stopped = dev.terminate();
        (dev, stopped)
    });
    let answer = socket.answer(id).await;
    assert_eq!(first_text(&answer), "slept", "{answer}");
    let (code, reason) = socket.closed().await;
    assert!(code == 1001 && reason.starts_with("PV-WS-DRAINING"), "{code} {reason}");
    let (dev, (took, clean)) = stopped.join().unwrap();
    assert!(clean && took < STOP_LIMIT, "stopping took {took:?}: {}", dev.stderr());
    assert_eq!(outcomes(&dev, "up.slow")[0]["status"], "ok");
}
