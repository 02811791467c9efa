//! `provost plugin reload`, `install` and `rollback` while calls of the plugins run.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use provost_package::SigningKey;
use serde_json::{Value, json};

use crate::{
    harness::{Dev, binary, call_tool, text, until},
    packages::{package, publisher, put, well},
    wasm::base,
};

/// Changes of each kind.
const ROUNDS: u8 = 5;

/// Ends the callers, also where something fails before they were to end.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn is_good(answer: &Value) -> bool {
    answer["result"]["content"][0]["text"].is_string() && answer["result"]["isError"] != true
}

/// Records of a tool's calls: intents, and outcomes that are good.
fn recorded(dev: &Dev, tool: &str) -> (usize, usize) {
    let query = text(&dev.cli(&["audit", "query", "--json", "--tool", tool, "--limit", "100000"]));
    let records = query.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let records: Vec<Value> = records.map(|line| line["record"].clone()).collect();
    let intents = records.iter().filter(|record| record["phase"] == "intent").count();
    let outcomes = records.iter().filter(|record| record["phase"] == "outcome" && record["status"] == "ok").count();
    (intents, outcomes)
}

/// A component of a package and a server that is a child process: calls that run end where they began, and the next ones
/// find what comes after.
#[test]
fn plugins_that_are_started_anew_under_calls_fail_none_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let child = format!(
        "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: up, tenant: acme }}\n\
         spec: {{ source: {{ mcp-stdio: {{ command: '{}', isolation: {{ required: false }} }} }} }}\n",
        binary("everything-rmcp").display()
    );
    let dev = Dev::start_in(&dir.path().join("data"), Some(&(base() + &publisher(&key) + &child)), &[]);
    let files = [1, 2].map(|n| put(dir.path(), &format!("{n}.package"), package(n, Some(&key)).bytes()));
    well(&dev, &["plugin", "install", &files[0]]);
    let tools = [("text.slug", json!({ "text": "Any Node" })), ("up.test_simple_text", json!({}))];
    for (tool, arguments) in &tools {
        until(|| is_good(&call_tool(&dev, tool, arguments.clone())).then_some(()));
    }
    let before = tools.each_ref().map(|(tool, _)| recorded(&dev, tool));

    let ends = AtomicBool::new(false);
    let calls = thread::scope(|scope| {
        let _ending = Ending(&ends);
        let callers = tools.each_ref().map(|(tool, arguments)| {
            let (dev, ends) = (&dev, &ends);
            scope.spawn(move || {
                let mut calls = 0_usize;
                while !ends.load(Ordering::Relaxed) {
                    let answer = call_tool(dev, tool, arguments.clone());
                    assert!(is_good(&answer), "{tool}: {answer}");
                    calls += 1;
                    // The log is read whole at the end.
                    thread::sleep(Duration::from_millis(5));
                }
                calls
            })
        });
        for round in 0..ROUNDS {
            well(&dev, &["plugin", "reload", "text"]);
            well(&dev, &["plugin", "reload", "up"]);
            // The other version; then back, and at the end it is the first one again.
            well(&dev, &["plugin", "install", &files[1], "--reason", &format!("round {round}")]);
            well(&dev, &["plugin", "rollback", "text"]);
        }
        ends.store(true, Ordering::Relaxed);
        callers.map(|caller| caller.join().unwrap())
    });
    for (((tool, _), (intents, outcomes)), calls) in tools.iter().zip(before).zip(calls) {
        assert!(calls > usize::from(ROUNDS), "{tool}: {calls} calls");
        assert_eq!(recorded(&dev, tool), (intents + calls, outcomes + calls), "{tool}: each call is there once");
    }
}
