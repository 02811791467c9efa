//! Pins, quarantine and aliases of tools through one node.

use serde_json::{Value, json};

use crate::harness::{Dev, Process, call_tool, modern, post, text, until, upstream_yaml};

fn works(answer: &Value) -> bool {
    answer["result"]["content"][0]["text"].is_string()
}

fn code(answer: &Value) -> &str {
    answer["error"]["data"]["code"].as_str().unwrap_or_default()
}

fn run(dev: &Dev, args: &[&str]) -> (bool, String) {
    let output = dev.cli(args);
    (output.status.success(), text(&output))
}

fn listed(dev: &Dev) -> Vec<Value> {
    let (_, answer) = post(dev.mcp(), dev.token(), &modern("tools/list", json!({})));
    answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

fn named<'a>(tools: &'a [Value], name: &str) -> Option<&'a Value> {
    tools.iter().find(|tool| tool["name"] == name)
}

#[test]
fn nothing_is_served_before_it_is_approved_and_quarantine_takes_it_back() {
    let upstream = Process::everything("modern");
    let yaml = upstream_yaml(&upstream.url).replace("timeoutMs: 5000", "timeoutMs: 5000\n  definitions: approve");
    let dev = Dev::start(Some(&yaml), &[]);
    let call = |tool: &str| call_tool(&dev, tool, json!({}));
    assert_eq!(code(&call("up.test_simple_text")), "PV-TOOL-QUARANTINED");
    assert!(named(&listed(&dev), "up.test_simple_text").is_none(), "what waits is listed");
    until(|| run(&dev, &["plugin", "status", "up"]).1.contains("test_simple_text: waits").then_some(()));

    let (done, said) = run(&dev, &["plugin", "approve", "up", "--tool", "test_simple_test"]);
    assert!(!done && said.contains("PV-PLUGIN-TOOL") && said.contains("`test_simple_text`"), "{said}");
    let (done, said) = run(&dev, &["plugin", "approve", "up", "--tool", "test_simple_text"]);
    assert!(done && said.contains("approved: test_simple_text"), "{said}");
    until(|| works(&call("up.test_simple_text")).then_some(()));
    assert_eq!(code(&call("up.count_begun")), "PV-TOOL-QUARANTINED", "one approval is of one tool");
    let (done, said) = run(&dev, &["plugin", "approve", "up"]);
    assert!(done, "{said}");
    until(|| works(&call("up.count_begun")).then_some(()));

    let (done, said) = run(&dev, &["plugin", "quarantine", "up", "--tool", "count_begun"]);
    assert!(!done && said.contains("PV-PLUGIN-REASON"), "{said}");
    let (done, said) = run(&dev, &["plugin", "quarantine", "up", "--tool", "count_begun", "--reason", "INC-9"]);
    assert!(done, "{said}");
    until(|| (code(&call("up.count_begun")) == "PV-TOOL-QUARANTINED").then_some(()));
    assert!(call("up.count_begun")["error"]["message"].as_str().unwrap().contains("INC-9"));
    assert!(works(&call("up.test_simple_text")));
    let (_, shown) = run(&dev, &["plugin", "list"]);
    assert!(shown.contains("approve") && shown.contains("up"), "{shown}");
    // The kill switch knows the tools that were seen.
    let (done, said) = run(&dev, &["kill-switch", "on", "--tool", "up.count_begin", "--reason", "x"]);
    assert!(!done && said.contains("`up.count_begun`"), "{said}");
    // What was approved of a plugin goes with it.
    assert!(run(&dev, &["delete", "Plugin", "up"]).0);
    let (_, shown) = run(&dev, &["get", "ToolPins"]);
    assert!(!shown.contains("wait for approval"), "{shown}");
}

#[test]
fn an_alias_leads_to_one_version_and_goes_out_of_use() {
    let (old, new) = (Process::everything("modern"), Process::everything("modern"));
    let alias = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: provost/v1\nkind: ToolAlias\nmetadata: {{ name: {name}, tenant: acme }}\nspec: {spec}\n"
        )
    };
    let yaml = format!(
        "{}---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: v2, tenant: acme }}\n\
         spec: {{ source: {{ mcp-http: {{ url: '{}' }} }} }}\n{}{}{}{}",
        upstream_yaml(&old.url),
        new.url,
        alias("hello", "{ targets: [{ tool: up.greet, weight: 0 }, { tool: v2.greet }] }"),
        alias(
            "say-hello",
            "{ targets: [{ tool: up.greet }], deprecated: { until: '2999-01-01T00:00:00Z', message: 'Use hello.' } }"
        ),
        alias(
            "gone",
            "{ targets: [{ tool: up.greet }], deprecated: { until: '2020-01-01T00:00:00Z', message: 'Use hello.' } }"
        ),
        alias("nowhere", "{ targets: [{ tool: none.greet }] }"),
    );
    let dev = Dev::start(Some(&yaml), &[]);
    let call = |tool: &str| call_tool(&dev, tool, json!({ "name": "ana" }));
    let answer = call("hello");
    assert!(works(&answer) && answer["result"]["_meta"]["io.provost/deprecated"].is_null(), "{answer}");
    let answer = call("say-hello");
    assert_eq!(answer["result"]["_meta"]["io.provost/deprecated"]["message"], "Use hello.", "{answer}");
    let answer = call("gone");
    assert!(code(&answer) == "PV-TOOL-RETIRED" && answer.to_string().contains("Use hello."), "{answer}");
    assert_eq!(code(&call("nowhere")), "PV-TOOL-UNKNOWN");

    let tools = listed(&dev);
    assert!(named(&tools, "hello").is_some() && named(&tools, "gone").is_none() && named(&tools, "nowhere").is_none());
    let old = named(&tools, "say-hello").unwrap();
    assert!(old["description"].as_str().unwrap().starts_with("[Deprecated until 2999-01-01T00:00:00Z. Use hello.]"));
    assert_eq!(old["_meta"]["io.provost/deprecated"]["until"], "2999-01-01T00:00:00Z");

    // The record names the version, and how it was called; a switch reaches it by either name.
    let query = run(&dev, &["audit", "query", "--json", "--tool", "v2.greet"]).1;
    assert!(query.contains("alias:hello") && !query.contains("up.greet"), "{query}");
    let (done, said) = run(&dev, &["kill-switch", "on", "--tool", "v2.greet", "--reason", "x"]);
    assert!(done, "{said}");
    until(|| (code(&call("hello")) == "PV-KILL-SWITCH").then_some(()));
    assert!(works(&call("say-hello")));
}
