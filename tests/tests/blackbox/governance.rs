//! Pins, quarantine and aliases of tools through one node.

use provost_wire::{BearerToken, connect_plain, governance::GovernToolsRequest, governance_over};
use serde_json::{Value, json};

use crate::{
    harness::{Dev, Process, call_tool, modern, post, text, until, upstream_yaml},
    ws_client::Socket,
};

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

/// What the admin API itself says to a quarantine of `up` with this reason.
fn refused_quarantine(dev: &Dev, reason: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = BearerToken::new(dev.info["admin_token"].as_str().unwrap()).unwrap();
        let channel = connect_plain(dev.info["admin"].as_str().unwrap()).await.unwrap();
        let (tenant, plugin, tool, reason) = ("acme".into(), "up".into(), String::new(), reason.into());
        let request = GovernToolsRequest { tenant, plugin, tool, reason };
        let refused = governance_over(channel, token).quarantine(request).await.unwrap_err();
        provost_wire::admin::Failure::of(&refused).to_string()
    })
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

    let (done, said) = run(&dev, &["plugin", "quarantine", "up", "--tool", "count_begun", "--reason", " "]);
    assert!(!done && said.contains("PV-PLUGIN-REASON"), "{said}");
    let told = refused_quarantine(&dev, "");
    assert!(told.contains("PV-PLUGIN-REASON"), "{told}");
    // A name alone is enough where somebody has to act at once.
    let (done, said) = run(&dev, &["plugin", "quarantine", "up"]);
    assert!(done && said.contains("quarantined: the plugin as a whole"), "{said}");
    until(|| (code(&call("up.test_simple_text")) == "PV-TOOL-QUARANTINED").then_some(()));
    let message = call("up.test_simple_text")["error"]["message"].to_string();
    assert!(message.contains("no reason was given"), "{message}");
    assert!(run(&dev, &["plugin", "approve", "up"]).0);
    until(|| works(&call("up.test_simple_text")).then_some(()));
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

/// Over sockets: each is one connection with all that a client hears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantine_and_approval_are_told_to_clients_of_both_eras() {
    const CHANGED: &str = "notifications/tools/list_changed";
    let upstream = Process::everything("modern");
    let clock = "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: { name: clock, tenant: acme }\n\
                 spec: { source: { builtin: { name: time } } }\n";
    let yaml = upstream_yaml(&upstream.url) + clock;
    let dev = tokio::task::block_in_place(|| Dev::start(Some(&yaml), &[]));
    let done = |args: &[&str]| tokio::task::block_in_place(|| until(|| run(&dev, args).0.then_some(())));
    let mut legacy = Socket::legacy(&dev, "", json!({})).await;
    let mut listening = Socket::open(&dev, "").await;
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let id = listening.begin_modern("subscriptions/listen", wanted).await;
    let first = listening.until(|m| m.get("method").is_some()).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    let mut asking = Socket::open(&dev, "").await;
    let mut shown = async |name: &str| {
        let answer = asking.modern("tools/list", json!({})).await;
        answer["result"]["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == name)
    };
    assert!(shown("up.greet").await && shown("clock.now").await);
    let began = std::time::Instant::now();
    // Again until the legacy one has heard: its stream opens in its own time.
    while !legacy.others.iter().any(|m| m["method"] == CHANGED) {
        assert!(began.elapsed() < crate::harness::START_LIMIT, "the session heard nothing");
        for (plugin, tool, name) in [("up", Some("greet"), "up.greet"), ("clock", None, "clock.now")] {
            for (verb, is_shown) in [("quarantine", false), ("approve", true)] {
                let of_tool = tool.map(|tool| ["--tool", tool]);
                let mut args = vec!["plugin", verb, plugin, "--reason", "INC-9"];
                args.extend(of_tool.iter().flatten());
                done(&args);
                let told = listening.until(|m| m["method"] == CHANGED).await;
                assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id, "{told}");
                assert_eq!(shown(name).await, is_shown, "{name}: what is told is so already");
            }
        }
        legacy.request("ping", json!({})).await;
    }
    assert!(legacy.others.iter().all(|m| m["params"]["_meta"].is_null()), "{:?}", legacy.others);
}

#[test]
fn what_was_applied_can_be_called_at_once() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let file = dev.data.join("more.yaml");
    for n in 0..5 {
        let plugin = format!(
            "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: clock{n}, tenant: acme }}\n\
             spec: {{ source: {{ builtin: {{ name: time }} }} }}\n"
        );
        std::fs::write(&file, plugin).unwrap();
        let (done, said) = run(&dev, &["apply", "-f", file.to_str().unwrap()]);
        assert!(done, "{said}");
        let answer = call_tool(&dev, &format!("clock{n}.now"), json!({}));
        assert!(answer["result"].is_object(), "{answer}");
    }
    let began = std::time::Instant::now();
    assert_eq!(code(&call_tool(&dev, "nothing.now", json!({}))), "PV-TOOL-UNKNOWN");
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "nobody waits for what nobody brings");
}
