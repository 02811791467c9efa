//! Plugins that call other tools, through one node: in the name of who calls them, as far as both may, and on record.

use std::{fs, path::Path, thread};

use serde_json::{Value, json};

use crate::{
    guards::{CARD, MASKED, document},
    harness::{Dev, Process, call_tool, modern, post, root, text, until, upstream_yaml},
    wasm::{base, code, put},
};

/// The guest that calls what it is told to, under this name, with these tools granted.
fn caller(data: &Path, name: &str, tools: &str) -> String {
    let guest = fs::read(root().join("data-plane/wasm/tests/guests/caller.wasm")).unwrap();
    let digest = put(data, "caller.wasm", &guest);
    document("Plugin", name, &format!("{{ source: {{ wasm: {{ file: caller.wasm, digest: '{digest}'{tools} }} }} }}"))
}

/// Calls a tool by a plugin; what the plugin says of it.
fn by(dev: &Dev, plugin: &str, tool: &str, arguments: Value) -> String {
    let answer = call_tool(dev, &format!("{plugin}.call"), json!({ "tool": tool, "arguments": arguments }));
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

fn many(dev: &Dev, tool: &str, times: u32) -> String {
    let arguments = json!({ "tool": tool, "arguments": { "text": "x" }, "times": times });
    let answer = call_tool(dev, "caller.many", arguments);
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

fn records(dev: &Dev, more: &[&str]) -> Vec<Value> {
    let args: Vec<&str> = ["audit", "query", "--json", "--limit", "1000"].iter().chain(more).copied().collect();
    let output = dev.cli(&args);
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].take()).collect()
}

/// The records of the only call of a tool: all of them name the call that led to it, which is returned.
fn led_by(dev: &Dev, tool: &str, count: usize) -> Value {
    let nested = until(|| Some(records(dev, &["--tool", tool])).filter(|found| found.len() >= count));
    assert_eq!(nested.len(), count, "{nested:?}");
    let led = nested[0]["root_call_id"].clone();
    for record in &nested {
        assert_eq!(record["root_call_id"], led, "{record}");
        assert_ne!(record["call_id"], led, "{record}");
    }
    let first = until(|| {
        let own = records(dev, &["--tool", "caller.call"]);
        own.into_iter().find(|record| record["call_id"] == led && record["phase"] == "outcome")
    });
    assert!(first["root_call_id"].is_null(), "a caller's own call has none above: {first}");
    assert!(nested.iter().all(|record| record["principal"] == first["principal"]), "{nested:?}");
    first
}

fn ready(dev: &Dev, plugin: &str, tool: &str, arguments: &Value) {
    let wish = json!({ "tool": tool, "arguments": arguments });
    until(|| call_tool(dev, &format!("{plugin}.call"), wish.clone())["error"].is_null().then_some(()));
}

#[test]
fn a_plugin_calls_as_its_caller_may_and_as_it_was_let_and_everything_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut yaml = base();
    for plugin in ["crm", "link", "deep", "paid", "cards", "other"] {
        yaml += &document("Plugin", plugin, "{ source: { builtin: { name: echo } } }");
    }
    let cedar = r#"forbid(principal, action, resource)
        when { context.args.hasTag("text") && context.args.getTag("text") == "secret" };"#;
    yaml += &document("Policy", "no-secrets", &json!({ "cedar": cedar }).to_string());
    yaml += &document("Guard", "mask", "{ tools: ['cards.*'], rules: [ { kinds: [card], action: mask } ] }");
    let quota = "{ limit: 4, unit: calls, window: month, tools: ['paid.*', 'caller.many'] }";
    yaml += &document("Quota", "paid", quota);
    yaml += &caller(&data, "caller", ", tools: ['*']");
    yaml += &caller(&data, "relay", ", tools: ['caller.*', 'deep.*']");
    yaml += &caller(&data, "mute", "");
    let mut dev = Dev::start_in(&data, Some(&yaml), &[]);
    for plugin in ["caller", "relay", "mute"] {
        ready(&dev, plugin, "crm.echo", &json!({ "text": "ready" }));
    }

    let told = by(&dev, "caller", "link.echo", json!({ "text": "hello" }));
    assert!(told.contains("hello"), "{told}");
    let first = led_by(&dev, "link.echo", 2);
    assert_eq!(first["status"], "ok", "{first}");
    for (plugin, tool, text, expect) in [
        ("caller", "crm.echo", "secret", "not allowed: PV-POLICY-DENIED"),
        ("caller", "nowhere.echo", "x", "not allowed: PV-TOOL-UNKNOWN"),
        // The caller may; the documents do not let these plugins.
        ("mute", "crm.echo", "x", "not allowed: PV-PLUGIN-GRANT"),
        ("relay", "other.echo", "x", "not allowed: PV-PLUGIN-GRANT"),
        ("caller", "cards.echo", CARD, MASKED),
    ] {
        let told = by(&dev, plugin, tool, json!({ "text": text }));
        assert!(told.contains(expect) && !told.contains(CARD), "{plugin} {tool}: {told}");
    }
    let denied = until(|| {
        records(&dev, &["--tool", "other.echo"]).into_iter().find(|record| record["error.type"] == "PV-PLUGIN-GRANT")
    });
    assert_eq!((&denied["phase"], &denied["status"]), (&json!("denied"), &json!("denied")), "{denied}");
    assert!(denied["agent"].as_str().unwrap().starts_with("plugin:relay/"), "{denied}");
    // What does not fit is the plugin's fault, not the caller's.
    let wrong = json!({ "tool": "crm.echo", "arguments": { "txt": "x" } });
    let answer = call_tool(&dev, "caller.call", wrong);
    assert_eq!(code(&answer), "PV-PLUGIN-FAILED", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("PV-ARGS-SCHEMA"), "{answer}");

    // So many calls a call.
    let told = many(&dev, "crm.echo", 40);
    assert!(told.starts_with("32 ") && told.contains("32 calls a call"), "{told}");
    // Of four, one is gone, one is the plugin's own call, and two are those that it makes.
    let told = many(&dev, "paid.echo", 5);
    assert!(told.starts_with("2 ") && told.contains("PV-QUOTA-EXCEEDED"), "{told}");

    // One plugin after the other, to the bottom and below it.
    let wrapped = |times: u32| {
        let mut wish = json!({ "tool": "deep.echo", "arguments": { "text": "bottom" } });
        for n in 0..times {
            let plugin = if n % 2 == 0 { "relay" } else { "caller" };
            wish = json!({ "tool": format!("{plugin}.call"), "arguments": wish });
        }
        wish
    };
    let answer = call_tool(&dev, "caller.call", wrapped(4));
    assert!(answer.to_string().contains("bottom"), "{answer}");
    led_by(&dev, "deep.echo", 2);
    let answer = call_tool(&dev, "caller.call", wrapped(5));
    let said = answer.to_string();
    assert!(said.contains("PV-PLUGIN-DEPTH") && !said.contains("bottom"), "{answer}");

    assert!(dev.terminate().1, "{}", dev.stderr());
    let verify = dev.cli(&["audit", "verify", data.join("audit").to_str().unwrap()]);
    assert_eq!(verify.status.code(), Some(2), "{}", text(&verify));
}

/// A switch for what a plugin calls ends that call; one for the plugin ends both.
#[test]
fn a_kill_switch_ends_what_a_plugin_waits_for() {
    let upstream = Process::everything("modern");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let yaml = upstream_yaml(&upstream.url).replace("timeoutMs: 5000", "timeoutMs: 60000");
    let dev = Dev::start_in(&data, Some(&(yaml + &caller(&data, "caller", ", tools: ['up.*']"))), &[]);
    ready(&dev, "caller", "up.test_simple_text", &json!({}));
    for (n, plugin) in [(1, "up"), (2, "caller")] {
        let (url, token) = (dev.mcp().to_owned(), dev.token().to_owned());
        let running = thread::spawn(move || {
            let wish = json!({ "tool": "up.slow", "arguments": { "ms": 60_000 } });
            post(&url, &token, &modern("tools/call", json!({ "name": "caller.call", "arguments": wish }))).1
        });
        let expect = n.to_string();
        let begun = || call_tool(&dev, "up.count_begun", json!({}))["result"]["content"][0]["text"] == *expect;
        until(|| begun().then_some(()));
        let switch = dev.cli(&["kill-switch", "on", "--tenant", "acme", "--plugin", plugin, "--reason", "INC-7"]);
        assert!(switch.status.success(), "{}", text(&switch));
        let answer = running.join().unwrap();
        assert!(answer.to_string().contains("PV-KILL-SWITCH"), "{answer}");
        assert_eq!(code(&answer), if plugin == "up" { "" } else { "PV-KILL-SWITCH" }, "{answer}");
        // The call that ran has its end, whichever way it came.
        let ended = until(|| {
            Some(records(&dev, &["--tool", "up.slow", "--status", "cancelled"])).filter(|found| found.len() == n)
        });
        assert!(ended.iter().all(|record| record["root_call_id"].is_string()), "{ended:?}");
        let switch = dev.cli(&["kill-switch", "off", "--tenant", "acme", "--plugin", plugin]);
        assert!(switch.status.success(), "{}", text(&switch));
        until(|| call_tool(&dev, "up.test_simple_text", json!({}))["error"].is_null().then_some(()));
    }
}
