//! The command line over each transport: the same answers, and clear words where an address does not fit.

use serde_json::Value;

use crate::{
    harness::{Dev, text},
    websocket::records,
};

/// What there is beside HTTP.
const OTHERS: [&str; 3] = ["ws", "h3", "quic"];

#[test]
fn tools_and_calls_are_the_same_over_every_transport() {
    let dev = Dev::start(None, &[]);
    let list = |transport: &str| -> Value {
        let output = dev.cli(&["tools", "--json", "--transport", transport]);
        assert!(output.status.success(), "{transport}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let over_http = list("http");
    for transport in OTHERS {
        assert_eq!(list(transport), over_http, "{transport}");
        let call = |tool: &str, argument: &str, more: &[&str]| {
            dev.cli(&[&["call", tool, "--arg", argument, "--transport", transport], more].concat())
        };
        let called = call("echo.echo", "text=on its way", &[]);
        assert!(called.status.success(), "{transport}: {}", text(&called));
        assert_eq!(String::from_utf8_lossy(&called.stdout), "on its way\n");
        let meta = call("echo.echo", "text=x", &["--show-meta"]);
        let meta: Value = serde_json::from_slice(&meta.stdout).unwrap();
        assert!(meta["_meta"]["io.provost/audit"]["leafHash"].is_string(), "{meta}");
        let failed = call("time.now", "offset=\"nowhere\"", &[]);
        assert_eq!(failed.status.code(), Some(1), "{transport}: {}", text(&failed));
        let (out, err) = (String::from_utf8_lossy(&failed.stdout), String::from_utf8_lossy(&failed.stderr));
        assert!(!out.is_empty() && err.starts_with("error: PV-") && err.contains("  next: "), "{out} {err}");
        let denied = call("sql.query", "sql=DROP TABLE customers", &[]);
        assert_eq!(denied.status.code(), Some(1));
        assert!(text(&denied).starts_with("error: PV-POLICY-DENIED: "), "{transport}: {}", text(&denied));
    }
    let found = records(&dev, &["--tool", "echo.echo"]);
    for transport in OTHERS {
        let count = found.iter().filter(|r| r["network.transport"] == transport).count();
        assert_eq!(count, 4, "an intent and an outcome for both calls over {transport}: {found:?}");
    }
}

#[test]
fn an_address_that_is_none_is_a_matter_of_usage() {
    let dev = Dev::start(None, &[]);
    let table: [(&[&str], &str, &str); 4] = [
        (&["--url", "127.0.0.1:8420"], "PV-CLI-URL", "http://HOST:PORT/mcp"),
        (&["--url", "127.0.0.1:8420", "--transport", "ws"], "PV-CLI-URL", "http://HOST:PORT/mcp"),
        (&["--url", "ftp://h/mcp"], "PV-CLI-URL", "http://HOST:PORT/mcp"),
        (&["--transport", "carrier-pigeon"], "error: PV-CLI-USAGE: ", "http, ws, h3 and quic"),
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

/// What `dev.json` says is enough, without `--ca`: any address, over any transport.
#[test]
fn any_address_of_the_node_serves_any_transport() {
    let dev = Dev::start(None, &[]);
    let address = |of: &str| dev.info[of].as_str().unwrap().to_owned();
    let table = [
        ("mcp", "ws"),
        ("mcp", "h3"),
        ("mcp", "quic"),
        ("ws", "http"),
        ("ws", "quic"),
        ("h3", "h3"),
        ("h3", "ws"),
        ("h3", "http"),
        ("quic", "quic"),
    ];
    for (of, transport) in table {
        let url = address(of);
        let place = ["--url", url.as_str(), "--transport", transport, "--token", dev.token()];
        let output = dev.cli(&[&["call", "echo.echo", "--arg", "text=there"][..], &place].concat());
        assert!(output.status.success(), "{of} over {transport}: {}", text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "there\n", "{of} over {transport}");
    }
    for transport in ["http", "ws", "h3", "quic"] {
        let count =
            records(&dev, &["--tool", "echo.echo"]).iter().filter(|r| r["network.transport"] == transport).count();
        assert!(count >= 2, "{count} records over {transport}");
    }
}

#[test]
fn arguments_that_cannot_be_read_are_a_matter_of_usage() {
    let dev = Dev::start(None, &[]);
    let table: [(&[&str], &str); 7] = [
        (&["call", "echo.echo", "--arg", "text"], "--arg text has no `=`"),
        (&["call", "echo.echo", "--arg", "text=a", "--arg", "text=b"], "`text` is given twice"),
        (&["call", "echo.echo", "--json", "{text"], "--json is refused"),
        (&["call", "echo.echo", "--json", "[\"hi\"]"], "not a JSON object"),
        // A node refuses it too; here the last one would silently be sent.
        (&["call", "echo.echo", "--json", "{\"text\":\"a\",\"text\":\"b\"}"], "\"text\" stands twice"),
        (&["bench", "--arg", "text"], "--arg text has no `=`"),
        (&["bench", "--json-args", "{\"text\":1,\"text\":2}"], "\"text\" stands twice"),
    ];
    for (args, says) in table {
        let output = dev.cli(args);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("PV-CLI-ARGUMENTS") && said.contains(says), "{args:?}: {said}");
    }
}

#[test]
fn a_load_without_a_tool_calls_the_quickstarts_echo() {
    let dev = Dev::start(None, &[]);
    let figures = dev.data.parent().unwrap().join("bench.json");
    let run = ["--connections", "2", "--rate", "20", "--duration", "1s", "--warmup", "200ms", "--timeout", "60s"];
    let tools: [&[&str]; 3] = [&[], &["--tool", "echo"], &["--tool", "echo", "--arg", "text=hi", "--expect", "hi"]];
    for tool in tools {
        let output = dev.cli(&[&["bench"][..], tool, &run, &["--json", figures.to_str().unwrap()]].concat());
        let found: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
        std::fs::remove_file(&figures).unwrap();
        assert_eq!(found["tool"], "echo.echo", "{}", text(&output));
        assert_eq!(found["answered"].as_u64(), Some(20), "{}", text(&output));
    }
    let nothing = dev.cli(&["bench", "--duration", "0s"]);
    assert!(nothing.status.code() == Some(2) && text(&nothing).contains("PV-BENCH-PLAN"), "{}", text(&nothing));
    let refused = dev.cli(&[&["bench", "--tool", "nothing"][..], &run].concat());
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("PV-BENCH-PROBE") && text(&refused).contains("PV-TOOL-UNKNOWN"));
}

#[test]
fn a_load_and_idle_connections_over_every_transport() {
    let dev = Dev::start(None, &[]);
    for transport in OTHERS {
        load_and_hold(&dev, transport);
    }
}

fn load_and_hold(dev: &Dev, transport: &str) {
    let figures = dev.data.parent().unwrap().join("bench.json");
    let flags = ["--tool", "echo.echo", "--arg", "text=hi", "--expect", "hi", "--transport", transport];
    let figures_to = ["--json", figures.to_str().unwrap()];
    let run = ["--connections", "4", "--rate", "20", "--duration", "2s", "--warmup", "200ms", "--timeout", "60s"];
    for era in ["modern", "legacy"] {
        let output = dev.cli(&[&["bench", "--era", era], &flags[..], &run, &figures_to].concat());
        // A loaded machine may be late; what was answered must be right, and nothing may fail.
        let found: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
        assert_eq!(found["transport"], transport, "{}", text(&output));
        assert_eq!((found["answered"].as_u64(), &found["errors"]), (Some(40), &serde_json::json!({})), "{found}");
    }
    let output = dev.cli(&[&["bench", "--idle", "200", "--duration", "1s"], &flags[..], &figures_to].concat());
    assert!(output.status.success(), "{transport}: {}", text(&output));
    let found: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
    assert_eq!((found["opened"].as_u64(), found["lost"].as_u64()), (Some(200), Some(0)), "{transport}: {found}");
    assert!(found["rss_bytes_after"].as_u64().unwrap() > 0, "{found}");
}
