//! A plugin that does everything a plugin should not, on a node: it is told which bound it met, and nobody else notices.

use std::fs;

use serde_json::{Value, json};

use crate::{
    harness::{Dev, call_tool, root, until},
    wasm::{base, code, component, put},
};

/// What a call of the guest's own that never ends is given, in milliseconds.
const TIMEOUT_MS: u32 = 5_000;

fn plugin(name: &str, wasm: &str) -> String {
    format!(
        "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: {name}, tenant: acme }}\n\
         spec:\n  timeoutMs: {TIMEOUT_MS}\n  source: {{ wasm: {{ {wasm} }} }}\n"
    )
}

fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

/// The neighbours, one a plugin of the same engine, answer, and rightly.
fn neighbours_answer(dev: &Dev, after: &str) {
    let answer = call_tool(dev, "text.slug", json!({ "text": "Any Node" }));
    assert_eq!(said(&answer), "any-node", "after {after}: {answer}");
    let answer = call_tool(dev, "crm.echo", json!({ "text": after }));
    assert_eq!(said(&answer), after, "{answer}");
}

#[test]
fn a_hostile_plugin_meets_its_bounds_and_its_neighbours_go_on_answering() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let guest = fs::read(root().join("data-plane/wasm/tests/guests/hostile.wasm")).unwrap();
    let hostile = put(&data, "hostile.wasm", &guest);
    let text = put(&data, "text.wasm", &component());
    let file = format!("file: hostile.wasm, digest: '{hostile}', egress: {{ allowHosts: [allowed.example] }}");
    let yaml = [
        base(),
        plugin("hostile", &file),
        plugin("roomy", &format!("{file}, memoryMib: 512")),
        plugin("brief", &format!("{file}, computeMs: 50")),
        plugin("text", &format!("file: text.wasm, digest: '{text}'")),
        "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: { name: crm, tenant: acme }\n\
         spec: { source: { builtin: { name: echo } } }\n"
            .to_owned(),
    ];
    let dev = Dev::start_in(&data, Some(&yaml.concat()), &[]);
    for (tool, arguments) in [
        ("hostile.flood", json!({ "n": 0 })),
        ("roomy.flood", json!({ "n": 0 })),
        ("brief.flood", json!({ "n": 0 })),
        ("text.slug", json!({ "text": "a" })),
    ] {
        until(|| call_tool(&dev, tool, arguments.clone())["error"].is_null().then_some(()));
    }

    // One that never ends, while others are called.
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| call_tool(&dev, "hostile.loop", json!({})));
        for n in 0..5 {
            neighbours_answer(&dev, &format!("loop {n}"));
        }
        let answer = looping.join().unwrap();
        assert_eq!(code(&answer), "PV-UPSTREAM-TIMEOUT", "{answer}");
    });
    let hundred_megabytes = json!({ "n": 100 << 20 });
    for (tool, arguments, expect) in [
        ("hostile.alloc", json!({}), "PV-PLUGIN-MEMORY"),
        ("hostile.trap", json!({ "text": "on purpose" }), "PV-PLUGIN-TRAP"),
        ("hostile.large", hundred_megabytes.clone(), "PV-PLUGIN-MEMORY"),
        ("roomy.large", hundred_megabytes, "PV-PLUGIN-TOO-LARGE"),
        ("brief.loop", json!({}), "PV-PLUGIN-COMPUTE"),
    ] {
        let answer = call_tool(&dev, tool, arguments);
        assert_eq!(code(&answer), expect, "{tool}: {answer}");
        neighbours_answer(&dev, tool);
    }
    // A host that its document does not name.
    let answer = call_tool(&dev, "hostile.fetch", json!({ "text": "https://forbidden.example/" }));
    assert!(said(&answer).contains("Denied"), "{answer}");
    neighbours_answer(&dev, "a forbidden host");
    // Two megabytes of lines, of which the log takes 64 KiB and says so.
    let answer = call_tool(&dev, "hostile.flood", json!({ "n": 20_000, "text": "x".repeat(100) }));
    assert_eq!(said(&answer), "done", "{answer}");
    until(|| dev.stderr().contains("lines over the bound of a call were dropped").then_some(()));
    let lines = dev.stderr().matches("guest: ").count();
    assert!(lines <= 1_000, "{lines} lines of the guest are in the log");
    neighbours_answer(&dev, "a flood");
    // It is no worse off itself.
    assert_eq!(said(&call_tool(&dev, "hostile.flood", json!({ "n": 0 }))), "done");
}
