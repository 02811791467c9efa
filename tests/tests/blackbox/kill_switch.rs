//! Kill switches: what they stop, on every transport, and what they say and record.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Dev, Process, call_tool, modern, post, text, until, upstream_yaml};

/// How long a record may take to be found.
const SHOW_LIMIT: Duration = Duration::from_secs(60);

fn start() -> (Process, Dev) {
    let upstream = Process::everything("modern");
    let yaml = upstream_yaml(&upstream.url).replace("timeoutMs: 5000", "timeoutMs: 60000")
        + "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: { name: two, tenant: acme }\n\
           spec: { source: { builtin: { name: echo } } }\n";
    let dev = Dev::start(Some(&yaml), &[]);
    (upstream, dev)
}

/// Runs `provost kill-switch …`; its exit code and output.
fn switch(dev: &Dev, args: &[&str]) -> (i32, String) {
    let args: Vec<&str> = ["kill-switch"].into_iter().chain(args.iter().copied()).collect();
    let output = dev.cli(&args);
    (output.status.code().unwrap(), text(&output))
}

fn works(answer: &Value) -> bool {
    answer["result"]["content"][0]["text"].is_string()
}

fn is_stopped(answer: &Value) -> bool {
    answer["error"]["data"]["code"] == "PV-KILL-SWITCH"
}

/// Records of a tool with a status, once there are any.
fn records(dev: &Dev, tool: &str, status: &str) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let query = dev.cli(&["audit", "query", "--json", "--tool", tool, "--status", status]);
        assert!(query.status.success(), "{}", text(&query));
        let lines = String::from_utf8_lossy(&query.stdout).into_owned();
        let found: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].take()).collect();
        if !found.is_empty() {
            return found;
        }
        assert!(began.elapsed() < SHOW_LIMIT, "no {status} record of {tool}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_switch_is_checked_before_it_is_made() {
    let (_upstream, dev) = start();
    for (args, code, said) in [
        (&["on", "--plugin", "up"][..], 2, "--reason"),
        (&["on", "--reason", "x"], 2, "PV-KILL-SELECTOR"),
        (&["off"], 2, "PV-KILL-SELECTOR"),
        (&["on", "--plugin", "upp", "--reason", "x"], 1, "did you mean `up`?"),
        (&["on", "--principal", "bott", "--reason", "x"], 1, "did you mean `bot`?"),
        (&["on", "--tenant", "acne", "--reason", "x"], 1, "did you mean `acme`?"),
        (&["on", "--tool", "pu.read", "--reason", "x"], 1, "there is no tool pu.read"),
        (&["on", "--plugin", "up", "--reason", "  "], 1, "PV-KILL-SELECTOR"),
        (&["on", "--plugin", "up", "--tool", "two.echo", "--reason", "x"], 1, "PV-KILL-NOTHING"),
        (&["off", "--plugin", "up"], 0, "there is no such switch"),
        (&["status"], 0, "no switch is on"),
    ] {
        let (status, output) = switch(&dev, args);
        assert!(status == code && output.contains(said), "{args:?}: {status} {output}");
    }
    // A name that nothing has, on purpose.
    let (status, output) = switch(&dev, &["on", "--plugin", "gone", "--reason", "x", "--force"]);
    assert!(status == 0 && output.contains("stopped: plugin gone"), "{output}");
    // No document makes one, and none is removed as if one had.
    let file = dev.data.parent().unwrap().join("switch.yaml");
    std::fs::write(&file, "apiVersion: provost/v1\nkind: KillSwitch\nmetadata: { name: all }\nspec: { reason: x }\n")
        .unwrap();
    let applied = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert!(!applied.status.success() && text(&applied).contains("PV-DOC-GOVERNANCE"), "{}", text(&applied));
    let shown = text(&dev.cli(&["get", "KillSwitch"]));
    assert!(shown.contains("plugin gone: x"), "{shown}");
    let name = shown.split_whitespace().find(|word| word.starts_with("calls-")).unwrap();
    let deleted = dev.cli(&["delete", "KillSwitch", name]);
    assert!(!deleted.status.success() && text(&deleted).contains("kill-switch off"), "{}", text(&deleted));
}

#[test]
fn a_switch_stops_new_calls_and_those_that_run_and_is_recorded() {
    let (_upstream, mut dev) = start();
    assert!(works(&call_tool(&dev, "up.test_simple_text", json!({}))));
    // One that runs.
    let (url, token) = (dev.mcp().to_owned(), dev.token().to_owned());
    let running = std::thread::spawn(move || {
        let arguments = json!({ "name": "up.slow", "arguments": { "ms": 60_000 } });
        post(&url, &token, &modern("tools/call", arguments)).1
    });
    let begun = || call_tool(&dev, "up.count_begun", json!({}))["result"]["content"][0]["text"] == "1";
    until(|| begun().then_some(()));

    let began = Instant::now();
    let (status, output) = switch(&dev, &["on", "--tenant", "acme", "--plugin", "up", "--reason", "leaks, INC-7"]);
    assert!(status == 0 && output.contains("stopped: tenant acme, plugin up"), "{output}");
    let answer = running.join().unwrap();
    assert!(is_stopped(&answer), "{answer}");
    println!("kill switch: a running call ended {:?} after the command began", began.elapsed());
    let outcome = &records(&dev, "up.slow", "cancelled")[0];
    assert_eq!((&outcome["error.type"], &outcome["phase"]), (&json!("PV-KILL-SWITCH"), &json!("outcome")), "{outcome}");

    let stopped = call_tool(&dev, "up.test_simple_text", json!({}));
    let error = &stopped["error"];
    assert!(is_stopped(&stopped) && error["data"]["reason"] == "leaks, INC-7", "{stopped}");
    assert!(error["data"]["since"].as_str().unwrap().ends_with('Z'), "{stopped}");
    assert!(error["message"].as_str().unwrap().contains("tenant acme, plugin up"), "{stopped}");
    let denied = &records(&dev, "up.test_simple_text", "denied")[0];
    assert_eq!((&denied["error.type"], &denied["plugin"]), (&json!("PV-KILL-SWITCH"), &json!("up")), "{denied}");
    // Whatever it comes by.
    for transport in ["http", "ws", "h3", "quic"] {
        let called = dev.cli(&["call", "up.test_simple_text", "--transport", transport]);
        assert!(!called.status.success() && text(&called).contains("PV-KILL-SWITCH"), "{transport}: {}", text(&called));
    }
    for (method, params) in [
        ("prompts/get", json!({ "name": "up.test_simple_prompt" })),
        ("resources/read", json!({ "uri": "provost:up:test://static-text" })),
    ] {
        let answer = post(dev.mcp(), dev.token(), &modern(method, params)).1;
        assert!(is_stopped(&answer), "{method}: {answer}");
    }
    // Lists stay: nobody wonders where a tool went.
    let listed = text(&dev.cli(&["tools"]));
    assert!(listed.contains("up.test_simple_text"), "{listed}");
    // Once more changes nothing; a rollback, a restart and other changes leave it on.
    let (_, output) = switch(&dev, &["on", "--tenant", "acme", "--plugin", "up", "--reason", "leaks, INC-7"]);
    assert!(output.contains("(it was before)"), "{output}");
    let history = text(&dev.cli(&["history"]));
    assert!(history.contains("kill-switch.on") && history.contains("leaks, INC-7"), "{history}");
    let before: Value = serde_json::from_slice(&dev.cli(&["kill-switch", "status", "--json"]).stdout).unwrap();
    let to = (before["revision"].as_u64().unwrap() - 1).to_string();
    let rolled = dev.cli(&["rollback", "--to", &to]);
    assert!(rolled.status.success(), "{}", text(&rolled));
    let data = dev.data.clone();
    dev.kill_9();
    let dev = Dev::start_in(&data, None, &[]);
    assert!(is_stopped(&call_tool(&dev, "up.test_simple_text", json!({}))));
    let after: Value = serde_json::from_slice(&dev.cli(&["kill-switch", "status", "--json"]).stdout).unwrap();
    assert_eq!(before["active"], after["active"]);
    assert_eq!(after["active"][0]["by_cluster"], true);

    let (status, output) = switch(&dev, &["off", "--tenant", "acme", "--plugin", "up", "--reason", "fixed"]);
    assert!(status == 0 && output.contains("let through again"), "{output}");
    until(|| works(&call_tool(&dev, "up.test_simple_text", json!({}))).then_some(()));
    let events = until(|| {
        let query = dev.cli(&["audit", "query", "--json", "--tenant", "acme", "--limit", "1000"]);
        let lines = String::from_utf8_lossy(&query.stdout).into_owned();
        let both = lines.contains("\"kill-switch.on\"") && lines.contains("\"kill-switch.off\"");
        both.then_some(lines)
    });
    assert!(events.contains("tenant acme, plugin up: leaks, INC-7"), "who and why are not in the log");
}

#[test]
fn several_switches_hold_together_and_all_go_at_once() {
    let (_upstream, dev) = start();
    let call = |tool: &str| call_tool(&dev, tool, json!({}));
    assert_eq!(switch(&dev, &["on", "--tool", "up.test_simple_*", "--reason", "a"]).0, 0);
    assert_eq!(switch(&dev, &["on", "--principal", "nobody", "--reason", "b", "--force"]).0, 0);
    until(|| is_stopped(&call("up.test_simple_text")).then_some(()));
    assert!(works(&call("up.count_begun")), "a switch of one tool stopped another");
    assert_eq!(switch(&dev, &["on", "--all", "--reason", "drill"]).0, 0);
    until(|| is_stopped(&call("up.count_begun")).then_some(()));
    // The OpenAI endpoints too.
    let token = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    let body = json!({ "model": "none", "messages": [{ "role": "user", "content": "hi" }] });
    let (status, answer) =
        crate::harness::post_raw(&format!("{}/v1/chat/completions", dev.base()), &token, body.to_string().into());
    assert!(status == 404 || status == 403, "{status} {answer}");
    let (_, output) = switch(&dev, &["status"]);
    for said in ["everything", "tool up.test_simple_*", "principal nobody", "drill"] {
        assert!(output.contains(said), "{output}");
    }
    let (status, output) = switch(&dev, &["off", "--all"]);
    assert!(status == 0 && output.contains("no switch is on"), "{output}");
    until(|| works(&call("up.test_simple_text")).then_some(()));
}
