//! Handles of others: sessions, states of questions, cursors. Holding one proves nothing.

use serde_json::{Value, json};

use super::{token_of, verdict};
use crate::harness::{Dev, Process, modern, post, post_raw, upstream_yaml};

fn two_people(url: &str) -> String {
    upstream_yaml(url).replace("principals: [bot]", "principals: [bot, eve]")
        + "---\napiVersion: provost/v1\nkind: Principal\nmetadata: { name: eve, tenant: acme }\nspec: { type: agent }\n"
}

fn legacy(dev: &Dev, token: Option<&str>, session: Option<&str>, body: &Value) -> (u16, Value) {
    let mut headers = vec![("mcp-protocol-version".to_owned(), "2025-11-25".to_owned())];
    headers.extend(token.map(|t| ("authorization".to_owned(), format!("Bearer {t}"))));
    headers.extend(session.map(|s| ("mcp-session-id".to_owned(), s.to_owned())));
    post_raw(dev.mcp(), &headers, body.to_string().into_bytes())
}

/// The session that `initialize` gives.
fn session(dev: &Dev, token: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}});
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(dev.mcp()).header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream").body(body.to_string());
        let response = request.send().await.unwrap();
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    })
}

/// The handle with one of its characters, in the middle, changed.
fn changed(handle: &str) -> String {
    let at = handle.len() / 2;
    let other = if handle.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &handle[..at], &handle[at + 1..])
}

#[test]
fn handles_are_their_owners_alone() {
    let upstream = Process::everything("modern");
    let dev = Dev::start(Some(&two_people(&upstream.url)), &[]);
    let (bot, eve) = (dev.token().to_owned(), token_of(&dev, "acme", "eve"));
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let mine = session(&dev, &bot);
    let elsewhere = Dev::start(Some(&two_people(&upstream.url)), &[]);
    let foreign = session(&elsewhere, elsewhere.token());
    let table = [
        ("the owner's", Some(bot.as_str()), mine.clone(), 200),
        ("another principal's", Some(eve.as_str()), mine.clone(), 404),
        ("without a token", None, mine.clone(), 401),
        ("one character changed", Some(bot.as_str()), changed(&mine), 404),
        ("cut", Some(bot.as_str()), mine[..mine.len() - 4].to_owned(), 404),
        ("another cluster's", Some(bot.as_str()), foreign, 404),
        ("made up", Some(bot.as_str()), "session-1".to_owned(), 404),
    ];
    for (case, token, session, expected) in table {
        let (status, answer) = legacy(&dev, token, Some(&session), &list);
        verdict("session", case, &format!("{status} {}", answer["error"]["data"]["code"]));
        assert_eq!(status, expected, "{case}: {answer}");
    }

    // A question of a tool: the state that comes with it is bound to who was asked, and what.
    let tool = "up.test_input_required_result_request_state";
    let ask = |token: &str, name: &str, state: Option<&Value>| {
        let mut body = modern("tools/call", json!({ "name": name, "arguments": {} }));
        body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {}});
        if let Some(state) = state {
            body["params"]["requestState"] = state.clone();
            body["params"]["inputResponses"] = json!({"confirm": {"action": "accept", "content": {"ok": true}}});
        }
        post(dev.mcp(), token, &body).1
    };
    let asked = ask(&bot, tool, None);
    let state = asked["result"]["requestState"].clone();
    assert!(state.is_string(), "{asked}");
    let tampered = json!(changed(state.as_str().unwrap()));
    let other = "up.test_input_required_result_elicitation";
    let table = [
        ("another principal's", ask(&eve, tool, Some(&state)), false),
        ("for another tool", ask(&bot, other, Some(&state)), false),
        ("one character changed", ask(&bot, tool, Some(&tampered)), false),
        ("made up", ask(&bot, tool, Some(&json!("state-1"))), false),
        ("the owner's", ask(&bot, tool, Some(&state)), true),
    ];
    for (case, answer, taken) in table {
        verdict("state", case, &format!("{} {}", answer["error"]["data"]["code"], answer["result"]["resultType"]));
        assert_eq!(
            answer["result"]["resultType"] == "complete" && answer["error"].is_null(),
            taken,
            "{case}: {answer}"
        );
    }

    // Lists are given whole, so nobody has a cursor of this node: -32602, as MCP says, in both eras.
    let session = session(&dev, &eve);
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        for cursor in [json!("AAAA"), json!("up:1"), json!("x".repeat(5_000)), json!("../../etc"), json!(1), json!({})]
        {
            let params = json!({ "cursor": cursor });
            let (status, answer) = post(dev.mcp(), &eve, &modern(method, params.clone()));
            let shown: String = cursor.to_string().chars().take(20).collect();
            verdict("cursor", &shown, &format!("{status} {}", answer["error"]["code"]));
            assert_eq!(answer["error"]["code"], -32602, "{method} {shown}: {status} {answer}");
            let old = json!({"jsonrpc": "2.0", "id": 4, "method": method, "params": params});
            let (status, answer) = legacy(&dev, Some(&eve), Some(&session), &old);
            assert_eq!(answer["error"]["code"], -32602, "{method} {shown}: {status} {answer}");
        }
    }
    // None, as some clients write it.
    for none in [Value::Null, json!("")] {
        let (status, answer) = post(dev.mcp(), &eve, &modern("tools/list", json!({ "cursor": none })));
        assert!(answer["result"]["tools"].is_array(), "{status} {answer}");
    }
}

/// A request that speaks of tasks.
fn about_tasks(method: &str, params: Value) -> Value {
    let mut body = modern(method, params);
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
        json!({"elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}});
    body
}

#[test]
fn a_task_is_of_who_made_it() {
    let upstream = Process::everything("modern");
    let dev = Dev::start(Some(&two_people(&upstream.url)), &[]);
    let (bot, eve) = (dev.token().to_owned(), token_of(&dev, "acme", "eve"));
    let make = json!({"name": "up.slow_compute", "arguments": {"label": "mine", "seconds": 60}});
    let (_, made) = post(dev.mcp(), &bot, &about_tasks("tools/call", make));
    assert_eq!(made["result"]["resultType"], "task", "{made}");
    let handle = made["result"]["taskId"].as_str().unwrap().to_owned();
    let parts: Vec<&str> = handle.split('~').collect();
    assert!(handle.starts_with("up.") && parts.len() == 3, "{handle}");
    let of_eve = json!({"name": "up.slow_compute", "arguments": {"label": "hers", "seconds": 60}});
    let hers =
        post(dev.mcp(), &eve, &about_tasks("tools/call", of_eve)).1["result"]["taskId"].as_str().unwrap().to_owned();
    let her_mac = hers.rsplit_once('~').unwrap().1;

    // What is said of a task that never was, with its own name left out.
    let said = |token: &str, method: &str, handle: &str| {
        let mut params = json!({"taskId": handle});
        if method == "tasks/update" {
            params["inputResponses"] = json!({});
        }
        let (status, answer) = post(dev.mcp(), token, &about_tasks(method, params));
        let mut error = answer["error"].clone();
        error["data"].as_object_mut().map(|data| data.remove("audit"));
        (error["code"].is_null(), format!("{status} {error}").replace(handle, "HANDLE"))
    };
    let legacy_said = |token: &str, method: &str, handle: &str| {
        let session = session(&dev, token);
        let body = json!({"jsonrpc": "2.0", "id": 3, "method": method, "params": {"taskId": handle}});
        let (status, answer) = legacy(&dev, Some(token), Some(&session), &body);
        let mut error = answer["error"].clone();
        error["data"].as_object_mut().map(|data| data.remove("audit"));
        format!("{status} {error}").replace(handle, "HANDLE")
    };
    let attacks = [
        ("another principal's", &eve, handle.clone()),
        ("the upstream's own id", &bot, parts[0].to_owned()),
        ("one character of the id changed", &bot, changed(&handle)),
        ("with the mac of another's", &eve, format!("{}~{}~{her_mac}", parts[0], parts[1])),
        ("with the mac of another's, by the owner", &bot, format!("{}~{}~{her_mac}", parts[0], parts[1])),
        ("cut", &bot, handle[..handle.len() - 4].to_owned()),
        ("of a plugin that is not there", &bot, handle.replacen("up.", "down.", 1)),
    ];
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let unknown = said(&eve, method, "up.made-up");
        assert!(!unknown.0 && unknown.1.contains("PV-TASK-UNKNOWN"), "{unknown:?}");
        for (case, token, handle) in &attacks {
            let answer = said(token, method, handle);
            verdict("task", &format!("{method}: {case}"), &answer.1);
            assert_eq!(answer, unknown, "{method}: {case}");
        }
    }
    for method in ["tasks/get", "tasks/cancel", "tasks/result"] {
        let unknown = legacy_said(&eve, method, "up.made-up");
        assert!(unknown.contains("PV-TASK-UNKNOWN"), "{unknown}");
        for (case, token, handle) in &attacks {
            let answer = legacy_said(token, method, handle);
            verdict("task", &format!("2025-11-25 {method}: {case}"), &answer);
            assert_eq!(answer, unknown, "{method}: {case}");
        }
    }
    // Nothing of that reached it: it still works, and is its owner's under the same name.
    let (_, answer) = post(dev.mcp(), &bot, &about_tasks("tasks/get", json!({"taskId": handle})));
    assert_eq!(
        (&answer["result"]["taskId"], &answer["result"]["status"]),
        (&json!(handle), &json!("working")),
        "{answer}"
    );
    let (_, cancelled) = post(dev.mcp(), &bot, &about_tasks("tasks/cancel", json!({"taskId": handle})));
    assert!(cancelled["error"].is_null(), "{cancelled}");
}
