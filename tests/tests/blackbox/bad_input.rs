//! Bad input: a clear error each, and nothing lost.

use serde_json::{Value, json};

use crate::harness::{Dev, binary, call_tool, modern, post, post_raw, text, upstream_yaml};

/// What is wrong, the status to expect, the body, the headers.
type Case = (&'static str, u16, String, Vec<(String, String)>);

fn headers(dev: &Dev, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all = vec![
        ("authorization".to_owned(), format!("Bearer {}", dev.token())),
        ("mcp-protocol-version".to_owned(), "2026-07-28".to_owned()),
        ("mcp-method".to_owned(), "tools/call".to_owned()),
        ("mcp-name".to_owned(), "echo.echo".to_owned()),
    ];
    all.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    all
}

fn echo(text: &str) -> Value {
    modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": text } }))
}

#[test]
fn each_kind_of_bad_request_gets_its_own_clear_error_and_the_node_goes_on() {
    let dev = Dev::start(None, &[]);
    let good = echo("hi").to_string();
    let (status, answer) = post_raw(dev.mcp(), &headers(&dev, &[]), good.clone().into_bytes());
    assert_eq!((status, &answer["result"]["isError"]), (200, &Value::Null), "{answer}");

    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{}{}}}",
        "{\"a\":".repeat(2_000),
        "1".to_owned() + &"}".repeat(2_000)
    );
    let duplicate = good.replacen("\"text\":\"hi\"", "\"text\":\"hi\",\"text\":\"ho\"", 1);
    assert_ne!(duplicate, good);
    // Just over the bound: of a much larger one the server stops reading, and a client that is still
    // writing then may see a broken pipe instead of the answer.
    let oversized = echo(&"x".repeat(4 << 20)).to_string();
    let cases: Vec<Case> = vec![
        ("not JSON", 400, "{oops".into(), headers(&dev, &[])),
        ("deep JSON", 400, deep, headers(&dev, &[])),
        ("duplicate keys", 400, duplicate, headers(&dev, &[])),
        ("batch", 400, format!("[{good}]"), headers(&dev, &[])),
        ("oversized body", 413, oversized, headers(&dev, &[])),
        ("wrong Origin", 403, good.clone(), headers(&dev, &[("origin", "http://evil.example")])),
        ("wrong method header", 400, good.clone(), {
            let mut h = headers(&dev, &[]);
            h[2].1 = "tools/list".into();
            h
        }),
        ("no token", 401, good.clone(), headers(&dev, &[])[1..].to_vec()),
        ("unknown token", 401, good.clone(), {
            let mut h = headers(&dev, &[]);
            h[0].1 = "Bearer pv_nobody_0000000000000000000000000000000000000000000".into();
            h
        }),
    ];
    for (name, expect, body, headers) in cases {
        let (status, answer) = post_raw(dev.mcp(), &headers, body.into_bytes());
        assert_eq!(status, expect, "{name}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{name} has no message: {answer}");
    }
    let (status, _) = post_raw(dev.mcp(), &headers(&dev, &[]), good.into_bytes());
    assert_eq!(status, 200, "the node no longer answers");
}

#[test]
fn what_a_killed_process_said_of_itself_is_gone_before_the_next_one_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    // Three voters refuse a folder of one, once the folder is theirs.
    std::fs::create_dir_all(dir.path().join("control")).unwrap();
    let file = dir.path().join("dev.json");
    std::fs::write(&file, "{}").unwrap();
    let mut command = std::process::Command::new(binary("provost"));
    command.args(["dev", "--nodes", "3", "--http", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
    let ended = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended));
    assert!(text(&ended).contains("PV-DEV-NODES"), "{}", text(&ended));
    assert!(!file.exists(), "whoever waits for dev.json would take an old one for the new process's");
}

#[test]
fn an_expired_key_is_refused_and_says_so() {
    let dev = Dev::start(None, &[]);
    let made = dev.cli(&["token", "create", "--principal", "ana", "--ttl", "1s", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_300));
    let (status, answer) = post(dev.mcp(), token, &echo("hi"));
    assert_eq!(status, 401, "{answer}");
    assert!(answer.to_string().contains("expired"), "{answer}");
}

#[test]
fn arguments_that_do_not_fit_the_schema_never_reach_the_tool() {
    let dev = Dev::start(None, &[]);
    let answer = call_tool(&dev, "echo.echo", json!({ "text": 7 }));
    let shown = answer.to_string();
    // The tool's answer, not the protocol's: so the model reads it and calls again.
    assert_eq!(answer["result"]["isError"], true, "{shown}");
    let said = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(said.contains("PV-ARGS-SCHEMA") && said.contains("text"), "the field is not named: {shown}");
    let denied = text(&dev.cli(&["audit", "query", "--json", "--tool", "echo.echo"]));
    assert!(denied.contains("PV-ARGS-SCHEMA"), "{denied}");
    let unknown = call_tool(&dev, "echo.nothing", json!({}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

#[test]
fn a_wrong_argument_of_a_query_is_called_that_and_no_denial() {
    let dev = Dev::start(None, &[]);
    for (arguments, named) in [
        (json!({ "query": "SELECT 1" }), "query"),
        (json!({}), "sql"),
        (json!({ "sql": "SELECT 1", "limit": 5 }), "limit"),
    ] {
        let answer = call_tool(&dev, "sql.query", arguments);
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        let said = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(said.contains("PV-ARGS-SCHEMA") && said.contains(named), "{named}: {answer}");
        assert_eq!(said.matches("do not fit").count(), 1, "said once: {said}");
    }
    // What policy forbids stays forbidden, however it is dressed.
    let answer = call_tool(&dev, "sql.query", json!({ "sql": "DROP TABLE orders" }));
    assert_eq!(answer["error"]["data"]["code"], "PV-POLICY-DENIED", "{answer}");
    let answer = call_tool(&dev, "sql.query", json!({ "sql": "DROP TABLE orders", "query": "SELECT 1" }));
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let good = call_tool(&dev, "sql.query", json!({ "sql": "SELECT 1" }));
    assert!(good["result"]["isError"] != true && good["result"].is_object(), "{good}");
}

#[test]
fn upstreams_that_fail_fail_clearly() {
    for (mode, code) in
        [("unreachable", "PV-UPSTREAM"), ("hang", "PV-"), ("garbage", "PV-UPSTREAM"), ("die", "PV-UPSTREAM")]
    {
        let server = crate::upstreams::Broken::start(mode);
        let dev = Dev::start(Some(&upstream_yaml(&server.url()).replace("timeoutMs: 5000", "timeoutMs: 1500")), &[]);
        let answer = call_tool(&dev, "up.echo", json!({ "text": "hi" }));
        let text = answer.to_string();
        assert!(answer["error"]["message"].is_string(), "{mode}: {text}");
        assert!(text.contains(code), "{mode}: {text}");
        let healthy = call_tool(&dev, "up.echo", json!({ "text": "again" }));
        assert!(healthy["error"].is_object(), "{mode}: {healthy}");
    }
}
