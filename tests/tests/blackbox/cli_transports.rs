//! The command line over each transport: the same answers, and clear words where an address does not fit.

use serde_json::Value;

use crate::{
    harness::{Dev, text},
    websocket::records,
};

#[test]
fn tools_and_calls_over_a_websocket_are_those_of_http() {
    let dev = Dev::start(None, &[]);
    let listed: Vec<Value> = ["http", "ws"]
        .iter()
        .map(|transport| {
            let output = dev.cli(&["tools", "--json", "--transport", transport]);
            assert!(output.status.success(), "{transport}: {}", text(&output));
            serde_json::from_slice(&output.stdout).unwrap()
        })
        .collect();
    assert_eq!(listed[0], listed[1]);

    let called = dev.cli(&["call", "echo.echo", "--arg", "text=over a socket", "--transport", "ws"]);
    assert!(called.status.success(), "{}", text(&called));
    assert_eq!(String::from_utf8_lossy(&called.stdout), "over a socket\n");
    let meta = dev.cli(&["call", "echo.echo", "--arg", "text=x", "--transport", "ws", "--show-meta"]);
    let meta: Value = serde_json::from_slice(&meta.stdout).unwrap();
    assert!(meta["_meta"]["io.provost/audit"]["leafHash"].is_string(), "{meta}");
    let denied = dev.cli(&["call", "sql.query", "--arg", "sql=DROP TABLE customers", "--transport", "ws"]);
    assert_eq!(denied.status.code(), Some(1));
    assert!(text(&denied).starts_with("error: PV-POLICY-DENIED: "), "{}", text(&denied));
    let found = records(&dev, &["--tool", "echo.echo"]);
    assert!(found.len() == 4 && found.iter().all(|r| r["network.transport"] == "ws"), "{found:?}");
}

#[test]
fn an_address_that_does_not_fit_its_transport_is_a_matter_of_usage() {
    let dev = Dev::start(None, &[]);
    let ws = dev.info["ws"].as_str().unwrap();
    let table: [(&[&str], &str, &str); 6] = [
        (&["--url", dev.mcp(), "--transport", "ws"], "PV-CLI-URL", "ws://HOST:PORT/mcp"),
        (&["--url", ws, "--transport", "http"], "PV-CLI-URL", "http://HOST:PORT/mcp"),
        (&["--url", ws, "--transport", "quic"], "PV-CLI-URL", "quic://HOST:PORT"),
        (&["--url", "127.0.0.1:8420"], "PV-CLI-URL", "http://HOST:PORT/mcp"),
        (&["--url", "ftp://h/mcp"], "PV-CLI-URL", "http://HOST:PORT/mcp"),
        (&["--transport", "carrier-pigeon"], "http, ws, h3 and quic", ""),
    ];
    for (flags, code, hint) in table {
        for command in [&["tools"][..], &["call", "echo.echo"], &["bridge"], &["bench"]] {
            let output = dev.cli(&[command, flags].concat());
            let said = text(&output);
            assert_eq!(output.status.code(), Some(2), "{command:?} {flags:?}: {said}");
            assert!(said.contains(code) && said.contains(hint), "{command:?} {flags:?}: {said}");
        }
    }
}

#[test]
fn a_load_and_idle_connections_over_a_websocket() {
    let dev = Dev::start(None, &[]);
    let figures = dev.data.parent().unwrap().join("bench.json");
    let flags = ["--tool", "echo.echo", "--arg", "text=hi", "--expect", "hi", "--transport", "ws", "--connections", "4"];
    let run = ["--rate", "20", "--duration", "2s", "--warmup", "200ms", "--timeout", "60s"];
    for era in ["modern", "legacy"] {
        let output =
            dev.cli(&[&["bench", "--era", era, "--json", figures.to_str().unwrap()], &flags[..], &run[..]].concat());
        // A loaded machine may be late; what was answered must be right, and nothing may fail.
        let found: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
        assert_eq!(found["transport"], "ws", "{}", text(&output));
        assert_eq!((found["answered"].as_u64(), &found["errors"]), (Some(40), &serde_json::json!({})), "{found}");
    }
    let output = dev.cli(
        &[&["bench", "--idle", "200", "--duration", "1s", "--json", figures.to_str().unwrap()], &flags[..8]].concat(),
    );
    assert!(output.status.success(), "{}", text(&output));
    let found: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
    assert_eq!((found["opened"].as_u64(), found["lost"].as_u64()), (Some(200), Some(0)), "{found}");
    assert!(found["rss_bytes_after"].as_u64().unwrap() > 0, "{found}");
}
