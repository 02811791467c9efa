//! MCP 2026-07-28.

use http::StatusCode;
use provost_types::{CallStatus, Phase};
use serde_json::{Value, json};

use crate::world::{World, data_lines, modern_request, read_until};

#[tokio::test]
async fn a_call_gives_plain_json_and_a_receipt() {
    let world = World::new();
    let said = world.modern("tools/call", json!({ "name": "echo", "arguments": { "x": 1.50 } })).await;
    assert_eq!(said.status, StatusCode::OK);
    assert!(!said.is_events());
    let result = &said.json()["result"];
    assert_eq!(result["resultType"], json!("complete"));
    assert_eq!(result["content"][0]["text"], json!(r#"{"x":1.5}"#));
    let receipt = &result["_meta"]["io.provost/audit"];
    assert_eq!(receipt["log"], json!("provost/acme"));
    assert_eq!(receipt["index"], json!(1), "the outcome, after the intent");
    assert_eq!(receipt["leafHash"], json!("ab".repeat(32)));
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], json!("provost"));
}

#[tokio::test]
async fn notifications_turn_the_answer_into_events() {
    let world = World::new();
    let said = world.modern("tools/call", json!({ "name": "slow_progress" })).await;
    assert!(said.is_events());
    assert_eq!(said.header("x-accel-buffering"), "no");
    let events = said.events();
    assert_eq!(events.len(), 4);
    assert_eq!(events[2]["params"]["progress"], json!(100));
    assert_eq!(events[3]["id"], json!(9));
    assert!(!said.text.contains("id: "), "modern streams cannot be taken up again");
}

#[tokio::test]
async fn a_client_without_events_gets_the_answer_alone() {
    let world = World::new();
    let (headers, body) = modern_request("tools/call", json!({ "name": "slow_progress" }));
    let mut headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    headers.push(("accept", "application/json"));
    let said = world.post(&headers, body).await;
    assert_eq!(said.json()["result"]["content"][0]["text"], json!("done"));
}

#[tokio::test]
async fn a_client_with_only_events_gets_the_answer_as_one() {
    let world = World::new();
    let (headers, body) = modern_request("tools/call", json!({ "name": "echo" }));
    let mut headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    headers.push(("accept", "text/event-stream"));
    let said = world.post(&headers, body).await;
    assert!(said.is_events());
    assert_eq!(said.events().len(), 1);
}

#[tokio::test]
async fn discovery_and_caching_hints() {
    let world = World::new();
    let result = world.modern("server/discover", json!({})).await.json()["result"].take();
    assert_eq!(result["supportedVersions"][0], json!("2026-07-28"));
    assert!(result.get("serverInfo").is_none());
    assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")));
    let read = world.modern("resources/read", json!({ "uri": "test://one" })).await.json();
    assert_eq!(read["result"]["cacheScope"], json!("private"), "rights differ between callers");
}

#[tokio::test]
async fn log_messages_only_as_asked() {
    let world = World::new();
    let call = |level: Value| json!({ "name": "log", "_meta": level });
    let none = world.modern("tools/call", call(json!({}))).await;
    assert!(!none.is_events());
    let key = "io.modelcontextprotocol/logLevel";
    let some = world.modern("tools/call", call(json!({ key: "warning" }))).await;
    assert_eq!(some.events().len(), 2);
    assert_eq!(some.events()[0]["params"]["level"], json!("warning"));
    let all = world.modern("tools/call", call(json!({ key: "debug" }))).await;
    assert_eq!(all.events().len(), 3);
}

#[tokio::test]
async fn refusals() {
    let world = World::new();
    let call = |name: &str| json!({ "name": name, "arguments": {} });

    let denied = world.modern("tools/call", call("denied")).await;
    assert_eq!((denied.status.as_u16(), denied.error_code()), (200, 4031));
    assert_eq!(denied.pv(), "PV-POLICY-DENIED");
    assert!(denied.text.contains("guards/no-denied"), "the policy is named");
    assert!(denied.json()["error"]["data"]["audit"]["index"].is_u64());

    let absent = world.modern("tools/call", call("absent")).await.json()["error"].take();
    let hidden = world.modern("tools/call", call("hidden")).await.json()["error"].take();
    assert_eq!(absent["code"], json!(-32602));
    assert_eq!(absent["message"], json!("Unknown tool: absent"));
    assert_eq!(hidden["message"], json!("Unknown tool: hidden"));
    assert_eq!(absent["data"]["code"], hidden["data"]["code"]);

    let limited = world.modern("tools/call", call("limited")).await;
    assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, "2"));
    let unknown = world.modern("tools/call", call("limit unknown")).await;
    assert_eq!((unknown.status.as_u16(), unknown.pv()), (503, "PV-QUOTA-UNREACHABLE".into()));

    let panicked = world.modern("tools/call", call("panic")).await;
    assert_eq!(panicked.pv(), "PV-INTERNAL");
    assert!(!panicked.text.contains("bug"));

    world.plane.break_audit();
    let unrecorded = world.modern("tools/call", call("echo")).await;
    assert_eq!((unrecorded.status.as_u16(), unrecorded.error_code()), (503, 5031));
}

#[tokio::test]
async fn a_resource_that_is_not_there() {
    let world = World::new();
    for uri in ["test://absent", "test://upstream-has-none"] {
        let said = world.modern("resources/read", json!({ "uri": uri })).await;
        assert_eq!((said.status.as_u16(), said.error_code()), (200, -32602));
        assert_eq!(said.json()["error"]["data"]["uri"], json!(uri));
    }
}

#[tokio::test]
async fn tasks_need_the_extension() {
    let world = World::new();
    let without = world.modern("tasks/get", json!({ "taskId": "t" })).await;
    assert_eq!((without.status.as_u16(), without.error_code()), (400, -32021));
    let required = &without.json()["error"]["data"]["requiredCapabilities"];
    assert!(required["extensions"]["io.modelcontextprotocol/tasks"].is_object());
    let with = json!({ "taskId": "t", "_meta": {
        "io.modelcontextprotocol/clientCapabilities": {
            "extensions": { "io.modelcontextprotocol/tasks": {} } } } });
    let said = world.modern("tasks/get", with).await;
    assert_eq!(said.json()["result"]["resultType"], json!("complete"));
}

#[tokio::test]
async fn an_undeclared_capability_is_not_used() {
    let world = World::new();
    let said = world.modern("tools/call", json!({ "name": "test_missing_capability" })).await;
    assert_eq!((said.status.as_u16(), said.error_code()), (400, -32021));
    assert!(said.json()["error"]["data"]["requiredCapabilities"]["sampling"].is_object());
}

/// The first round of a call that asks.
async fn first_round(world: &World, token: &str) -> String {
    let params = json!({ "name": "ask", "arguments": { "a": 1, "b": "ö" } });
    let result = world.modern_as(token, "tools/call", params).await.json()["result"].take();
    assert_eq!(result["resultType"], json!("input_required"));
    assert_eq!(result["inputRequests"]["user_name"]["method"], json!("elicitation/create"));
    let state = result["requestState"].as_str().unwrap().to_owned();
    assert!(!state.contains("inner"));
    state
}

fn second_round(state: &str) -> Value {
    // The same arguments as another serialiser would write them.
    json!({ "name": "ask", "arguments": { "b": "\u{f6}", "a": 1 }, "requestState": state,
        "inputResponses": { "user_name": { "action": "accept", "content": { "name": "Ada" } } } })
}

#[tokio::test]
async fn a_retry_gets_its_state_back() {
    let world = World::new();
    let state = first_round(&world, "token-alice").await;
    let said = world.modern("tools/call", second_round(&state)).await;
    assert_eq!(said.json()["result"]["content"][0]["text"], json!("Hello, Ada! [inner 1]"));
    // Any node of the cluster may get the retry.
    let said = world.sibling().modern("tools/call", second_round(&state)).await;
    assert_eq!(said.json()["result"]["content"][0]["text"], json!("Hello, Ada! [inner 1]"));
    let outcomes = world.plane.recorded(Phase::Outcome, "ask");
    let statuses: Vec<_> = outcomes.iter().map(|e| e.status).collect();
    assert_eq!(statuses[..2], [Some(CallStatus::InputRequired), Some(CallStatus::Ok)]);
}

#[tokio::test]
async fn states_that_are_not_good() {
    let world = World::new();
    let state = first_round(&world, "token-alice").await;
    let intents = world.plane.recorded(Phase::Intent, "ask").len();
    let refused = |said: crate::world::Said, what: &str| {
        assert_eq!((said.error_code(), said.pv().as_str()), (-32602, "PV-MCP-REQUEST-STATE"), "{what}");
    };

    let tampered = format!("{state}-TAMPERED");
    refused(world.modern("tools/call", second_round(&tampered)).await, "longer");
    let mut flipped = state.clone().into_bytes();
    flipped[30] = if flipped[30] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    refused(world.modern("tools/call", second_round(&flipped)).await, "flipped");
    refused(world.modern("tools/call", second_round("inner 1")).await, "made up");
    let mut number = second_round(&state);
    number["requestState"] = json!(7);
    refused(world.modern("tools/call", number).await, "no string");

    refused(world.modern_as("token-bob", "tools/call", second_round(&state)).await, "bob's");
    let mut other_arguments = second_round(&state);
    other_arguments["arguments"]["a"] = json!(2);
    refused(world.modern("tools/call", other_arguments).await, "other arguments");
    let mut other_tool = second_round(&state);
    other_tool["name"] = json!("ask_other");
    refused(world.modern("tools/call", other_tool).await, "other tool");
    refused(world.modern("prompts/get", second_round(&state)).await, "other method");

    world.plane.advance_s(15 * 60);
    let expired = world.modern("tools/call", second_round(&state)).await;
    assert!(expired.text.contains("expired"), "{}", expired.text);
    let denied = world.plane.denied_with("PV-MCP-REQUEST-STATE").await;
    assert_eq!(denied.what.method, "tools/call");
    assert_eq!(world.plane.recorded(Phase::Intent, "ask").len(), intents, "none of them ran");
}

#[tokio::test]
async fn responses_of_a_wrong_shape() {
    let world = World::new();
    for bad in [json!(null), json!([]), json!({ "user_name": 12345 })] {
        let params = json!({ "name": "ask", "inputResponses": bad });
        let said = world.modern("tools/call", params).await;
        assert_eq!(said.pv(), "PV-MCP-INPUT-RESPONSES");
    }
}

async fn subscribe(world: &World, wanted: Value) -> provost_data_serve::ResponseBody {
    let (headers, body) = modern_request("subscriptions/listen", json!({ "notifications": wanted }));
    let mut headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    headers.push(("content-type", "application/json"));
    headers.push(("accept", "application/json, text/event-stream"));
    world.open(http::Method::POST, "/mcp", &headers, body).await.into_body()
}

#[tokio::test]
async fn an_executor_that_does_not_acknowledge() {
    let world = World::new();
    let mut stream = subscribe(&world, json!({ "promptsListChanged": true })).await;
    let (_, first) = read_until(&mut stream, |_| true).await;
    assert_eq!(first["method"], json!("notifications/subscriptions/acknowledged"));
    assert_eq!(first["params"]["notifications"], json!({ "promptsListChanged": true }));
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], json!(9));
}

#[tokio::test]
async fn subscriptions_are_acknowledged_tagged_and_filtered() {
    let world = World::new();
    let mut stream = subscribe(&world, json!({ "toolsListChanged": true })).await;
    let (_, first) = read_until(&mut stream, |_| true).await;
    assert_eq!(first["method"], json!("notifications/subscriptions/acknowledged"));
    assert_eq!(first["params"]["notifications"]["toolsListChanged"], json!(true));
    world.plane.changes.send("notifications/prompts/list_changed").unwrap();
    world.plane.changes.send("notifications/tools/list_changed").unwrap();
    let (text, _) = read_until(&mut stream, |v| v["method"] != json!(null)).await;
    assert!(!text.contains("prompts/list_changed"), "not asked for");
    for event in data_lines(&text).iter().map(|d| serde_json::from_str::<Value>(d).unwrap()) {
        assert_eq!(event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], json!(9));
    }
    // Closing the stream is how a subscription ends.
    drop(stream);
    for _ in 0..3_000 {
        if !world.plane.recorded_method("subscriptions/listen", Phase::Outcome).is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the subscription did not end");
}
