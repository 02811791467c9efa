//! `provost bridge`: what a desktop client sees of a cluster, in good times and in bad ones.

use serde_json::json;

use crate::{
    bridge_process::{Bridge, Wire, wait_for},
    clients::run_client_with,
    harness::{Dev, Process, binary, call_tool, text, upstream_yaml},
    websocket::{phases, records},
};

const NOWHERE: &str = "ws://127.0.0.1:1/mcp";
/// How long a call runs in whose middle something is cut, in milliseconds: longer than any machine takes to get there.
const ENDLESS_MS: u64 = 300_000;

/// As [`upstream_yaml`], for calls that only the test ends: the plugin's bound must not be faster on a slow machine.
fn endless_yaml(url: &str) -> String {
    let bounded = upstream_yaml(url);
    let endless = bounded.replace("timeoutMs: 5000", &format!("timeoutMs: {}", ENDLESS_MS * 2));
    assert_ne!(endless, bounded, "the bound of calls is written otherwise");
    endless
}

#[test]
fn the_python_sdk_over_stdio() {
    let bridge = binary("provost");
    for upstream_era in ["legacy", "modern"] {
        run_client_with("ws", "python", upstream_era, &[("BRIDGE", bridge.to_str().unwrap())]);
    }
}

#[test]
fn the_python_sdk_over_stdio_and_every_other_transport() {
    let bridge = binary("provost");
    let table = [
        ("mcp", "modern", None),
        ("quic", "legacy", None),
        ("h3", "modern", Some(("TRANSPORT", "h3"))),
        // The same address is that of HTTP/1.1 under TLS.
        ("h3", "legacy", None),
    ];
    for (address, upstream_era, more) in table {
        println!("over {address} {more:?}");
        let variables: Vec<_> = [("BRIDGE", bridge.to_str().unwrap())].into_iter().chain(more).collect();
        run_client_with(address, "python", upstream_era, &variables);
    }
}

#[test]
fn both_eras_garbage_and_a_large_message_on_one_bridge() {
    let dev = Dev::start(None, &[]);
    for address in ["ws", "mcp"] {
        let mut bridge = Bridge::to(dev.info[address].as_str().unwrap(), dev.token());
        let session = bridge.initialize();
        assert_eq!(session["result"]["protocolVersion"], "2025-11-25", "{session}");
        let listed = bridge.request("tools/list", json!({}));
        assert!(listed["result"]["tools"].to_string().contains("\"sql.query\""), "{listed}");

        bridge.write("this is no JSON");
        assert_eq!(bridge.next()["error"]["code"], -32700);
        bridge.write("[]");
        assert_eq!(bridge.next()["error"]["code"], -32600);
        bridge.write("");

        let large = "é".repeat(512 * 1024);
        let echoed = bridge.call("echo.echo", json!({ "text": large }));
        assert_eq!(echoed["result"]["content"][0]["text"].as_str().map(str::len), Some(large.len()));
        let id = bridge.begin_call("echo.echo", json!({ "text": "x".repeat(5 * 1024 * 1024) }));
        let refused = bridge.answer(id);
        assert_eq!(refused["error"]["data"]["code"], "PV-MCP-TOO-LARGE", "{refused}");
        // Neither of them cost the connection.
        let again = bridge.call("echo.echo", json!({ "text": "again" }));
        assert_eq!(again["result"]["resultType"], "complete", "{again}");
        let denied = bridge.call("sql.query", json!({ "sql": "DROP TABLE customers" }));
        assert_eq!(denied["error"]["data"]["code"], "PV-POLICY-DENIED", "{denied}");
        let (rest, status, stderr) = bridge.end();
        assert!(rest.is_empty() && status.success() && stderr.is_empty(), "{rest:?} {status} {stderr}");
    }
}

#[test]
fn the_end_of_stdin_waits_for_the_calls_in_flight() {
    let upstream = Process::everything("modern");
    let dev = Dev::start(Some(&upstream_yaml(&upstream.url)), &[]);
    for address in ["ws", "mcp"] {
        let mut bridge = Bridge::to(dev.info[address].as_str().unwrap(), dev.token());
        let id = bridge.begin_call("up.slow", json!({ "ms": 1500 }));
        let (rest, status, stderr) = bridge.end();
        assert!(status.success(), "{stderr}");
        let answer = rest.iter().find(|m| m["id"] == id).unwrap_or_else(|| panic!("no answer: {rest:?} {stderr}"));
        assert!(answer["result"].is_object(), "{answer}");
    }
}

#[test]
fn a_call_whose_connection_is_lost_is_answered_and_not_sent_again() {
    let upstream = Process::everything("modern");
    let dev = Dev::start(Some(&endless_yaml(&upstream.url)), &[]);
    let wire = Wire::to(&dev);
    let mut bridge = Bridge::to(&wire.ws(""), dev.token());
    let session = bridge.initialize();
    assert!(session["result"].is_object(), "{session}");
    let lost = bridge.begin_call("up.slow", json!({ "ms": ENDLESS_MS }));
    wait_for("the intent of the slow call", || phases(&records(&dev, &["--tool", "up.slow"])).0 == 1);
    wire.cut();
    let answer = bridge.answer(lost);
    assert_eq!(answer["error"]["data"]["code"], "PV-BRIDGE-LOST", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("may have run"), "{answer}");

    // What is asked meanwhile waits, and runs when there is a way again.
    let waiting = bridge.begin("tools/call", json!({ "name": "up.test_simple_text", "arguments": {} }));
    wire.lead_to(&dev);
    let answer = bridge.answer(waiting);
    assert_eq!(answer["result"]["content"][0]["text"], "This is a simple text response for testing.", "{answer}");
    assert!(bridge.others.iter().all(|m| m["id"].is_null()), "one answer each: {:?}", bridge.others);
    let (_, status, _) = bridge.end();
    assert!(status.success());
    assert_eq!(phases(&records(&dev, &["--tool", "up.slow"])).0, 1, "it ran once");
}

#[test]
fn a_server_killed_in_mid_call_comes_back_and_the_bridge_goes_on() {
    let upstream = Process::everything("modern");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let yaml = endless_yaml(&upstream.url);
    let mut dev = Dev::start_in(&data, Some(&yaml), &[]);
    let token = dev.token().to_owned();
    let wire = Wire::to(&dev);
    let mut bridge = Bridge::to(&wire.ws(""), &token);
    bridge.initialize();
    let lost = bridge.begin_call("up.slow", json!({ "ms": ENDLESS_MS }));
    wait_for("the intent of the slow call", || phases(&records(&dev, &["--tool", "up.slow"])).0 == 1);
    dev.kill_9();
    wire.cut();
    let answer = bridge.answer(lost);
    assert_eq!(answer["error"]["data"]["code"], "PV-BRIDGE-LOST", "{answer}");
    let dev = Dev::start_in(&data, Some(&yaml), &[]);
    wire.lead_to(&dev);
    // In the legacy session that the bridge made again: it says what it is by its answers' shape.
    wait_for("an answer of the new server", || {
        let answer = bridge.request("tools/call", json!({ "name": "up.test_simple_text", "arguments": {} }));
        answer["result"]["content"][0]["text"].is_string()
    });
    assert!(bridge.end().1.success());
}

#[test]
fn a_token_that_is_not_good_is_an_answer_and_is_repeated_nowhere() {
    let dev = Dev::start(None, &[]);
    let secret = "pv_hunter2hunter2hunter2";
    for address in ["ws", "mcp"] {
        let mut bridge = Bridge::to(dev.info[address].as_str().unwrap(), secret);
        let answer = bridge.call("echo.echo", json!({ "text": "x" }));
        let code = answer["error"]["data"]["code"].as_str().unwrap_or_default();
        assert!(code.starts_with("PV-AUTH"), "{address}: {answer}");
        let (_, status, stderr) = bridge.end();
        assert!(status.success(), "{stderr}");
        assert!(!stderr.contains(secret) && !answer.to_string().contains(secret), "{stderr}");
    }
}

#[test]
fn a_server_that_is_not_there_is_an_answer() {
    let mut bridge = Bridge::to(NOWHERE, "x");
    let answer = bridge.call("echo.echo", json!({ "text": "x" }));
    assert_eq!(answer["error"]["data"]["code"], "PV-BRIDGE-UNREACHABLE", "{answer}");
    let (rest, status, stderr) = bridge.end();
    assert!(rest.is_empty() && status.success(), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
}

#[test]
fn the_token_comes_from_a_file_or_the_environment_and_stands_in_no_argument() {
    let dev = Dev::start(None, &[]);
    let file = dev.data.parent().unwrap().join("token");
    std::fs::write(&file, format!("{}\n", dev.token())).unwrap();
    let args = ["--url", dev.info["ws"].as_str().unwrap(), "--token-file", file.to_str().unwrap()];
    let mut bridge = Bridge::start(&args, &[]);
    let answer = bridge.call("echo.echo", json!({ "text": "from a file" }));
    assert_eq!(answer["result"]["content"][0]["text"], "from a file", "{answer}");
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", bridge.pid())).unwrap();
    assert!(!arguments.contains(dev.token()));
    assert!(bridge.end().1.success());

    let refused = dev.cli(&["bridge", "--token", "pv_x", "--url", NOWHERE]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    let empty = dev.cli(&["bridge", "--token-file", "/dev/null", "--url", NOWHERE]);
    assert!(text(&empty).contains("PV-CLI-TOKEN-FILE"), "{}", text(&empty));

    // Without a URL it is the running `provost dev`, with its token.
    let data = dev.data.to_str().unwrap();
    let mut bridge = Bridge::start(&["--transport", "ws", "--data-dir", data], &[]);
    let answer = bridge.call("echo.echo", json!({ "text": "dev" }));
    assert_eq!(answer["result"]["content"][0]["text"], "dev", "{answer}");
    assert!(bridge.end().1.success());
    assert!(call_tool(&dev, "echo.echo", json!({ "text": "still there" }))["result"].is_object());
}
