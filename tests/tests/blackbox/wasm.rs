//! Plugins that are WebAssembly components, through one node.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    harness::{Dev, agent_yaml, call_tool, modern, post, root, text, until},
    ws_client::Socket,
};

/// What every test begins with: an agent who may call every tool.
pub(crate) fn base() -> String {
    agent_yaml("{ tools: ['*'] }")
}

pub(crate) fn component() -> Vec<u8> {
    fs::read(root().join("examples/plugins/rust-text/text.wasm")).unwrap()
}

/// The same component with a custom section at its end: other bytes, other digest, same tools.
fn version(n: u8) -> Vec<u8> {
    let mut bytes = component();
    bytes.extend_from_slice(&[0, 3, 1, b'v', n]);
    bytes
}

/// Puts a component where the node looks for it; its digest.
pub(crate) fn put(data: &Path, file: &str, bytes: &[u8]) -> String {
    let folder = data.join("plugins");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(file), bytes).unwrap();
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn plugin(file: &str, digest: &str, more: &str) -> String {
    format!(
        "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: text, tenant: acme }}\n\
         spec:\n  source:\n    wasm: {{ file: {file}, digest: '{digest}'{more} }}\n"
    )
}

fn apply(dev: &Dev, yaml: &str) -> (bool, String) {
    let file = dev.data.join("change.yaml");
    fs::write(&file, yaml).unwrap();
    let output = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    (output.status.success(), text(&output))
}

pub(crate) fn code(answer: &Value) -> &str {
    answer["error"]["data"]["code"].as_str().unwrap_or_default()
}

fn slug(dev: &Dev) -> Value {
    call_tool(dev, "text.slug", json!({ "text": "Any Node" }))
}

#[test]
fn a_component_is_installed_while_the_node_runs_and_its_arguments_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let dev = Dev::start_in(&data, Some(&base()), &[]);
    assert_eq!(code(&slug(&dev)), "PV-TOOL-UNKNOWN");
    let digest = put(&data, "text.wasm", &component());
    let (done, said) = apply(&dev, &plugin("text.wasm", &digest, ", config: { separator: '_' }"));
    assert!(done, "{said}");
    let answer = until(|| Some(slug(&dev)).filter(|answer| answer["error"].is_null()));
    assert_eq!(answer["result"]["content"][0]["text"], "any_node", "{answer}");
    let answer = call_tool(&dev, "text.count", json!({ "text": "a b\nc" }));
    assert_eq!(answer["result"]["structuredContent"]["words"], 3, "{answer}");
    let answer = call_tool(&dev, "text.count", json!({ "texts": "a" }));
    let said = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(said.starts_with("PV-ARGS-SCHEMA"), "{answer}");
    let (_, listed) = post(dev.mcp(), dev.token(), &modern("tools/list", json!({})));
    let tools = listed["result"]["tools"].as_array().unwrap();
    let tool = tools.iter().find(|tool| tool["name"] == "text.count").unwrap();
    assert!(tool["inputSchema"]["properties"]["text"].is_object() && tool["outputSchema"].is_object(), "{tool}");
    // The record names the version.
    let query = text(&dev.cli(&["audit", "query", "--json", "--tool", "text.count"]));
    assert!(query.contains("plugin.digest"), "{query}");
}

#[test]
fn what_is_not_the_component_of_the_document_is_not_run_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let digest = put(&data, "text.wasm", &component());
    let wrong = put(&data, "other.wasm", &version(1));
    let dev = Dev::start_in(&data, Some(&(base() + &plugin("text.wasm", &wrong, ""))), &[]);
    let answer = until(|| Some(slug(&dev)).filter(|answer| code(answer) == "PV-PLUGIN-COMPONENT"));
    assert!(answer["error"]["message"].as_str().unwrap().contains("sha256:"), "{answer}");
    // Not there: it may come yet.
    let (done, said) = apply(&dev, &plugin("later.wasm", &digest, ""));
    assert!(done, "{said}");
    until(|| (code(&slug(&dev)) == "PV-PLUGIN-UNAVAILABLE").then_some(()));
    put(&data, "later.wasm", &component());
    until(|| slug(&dev)["error"].is_null().then_some(()));
    // Its configuration is judged by the component.
    let (done, said) = apply(&dev, &plugin("text.wasm", &digest, ", config: { colour: red }"));
    assert!(done, "{said}");
    until(|| dev.stderr().contains("PV-PLUGIN-CONFIG").then_some(()));
    assert!(slug(&dev)["error"].is_null(), "the version before goes on");
    // What no node could run is refused at once, with its field.
    for (more, expect) in [
        (", egress: {}", "spec.source.wasm.egress.allowHosts"),
        (", credentials: { key: { header: x-key, value: { secret: s }, hosts: [] } }", "spec.source.wasm.credentials"),
        (", memoryMib: 9999", "spec.source.wasm.memoryMib"),
        (", computeMs: 3600001", "spec.source.wasm.computeMs"),
    ] {
        let (done, said) = apply(&dev, &plugin("text.wasm", &digest, more));
        assert!(!done && said.contains(expect), "{said}");
    }
    let (done, said) = apply(&dev, &plugin("../text.wasm", &digest, ""));
    assert!(!done && said.contains("spec.source.wasm.file"), "{said}");
    let (done, said) = apply(&dev, &plugin("text.wasm", "sha256:00", ""));
    assert!(!done && said.contains("sha256:"), "{said}");
}

/// Prompts and resources of a component: what the caller may not see is not there.
#[test]
fn a_component_has_prompts_and_resources_for_who_may() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let guest = fs::read(root().join("data-plane/wasm/tests/guests/library.wasm")).unwrap();
    let digest = put(&data, "library.wasm", &guest);
    let library = plugin("library.wasm", &digest, "").replace("name: text", "name: library");
    let dev = Dev::start_in(&data, Some(&(base() + &library)), &[]);
    until(|| call_tool(&dev, "library.ping", json!({}))["error"].is_null().then_some(()));
    let ask = |method: &str, params: Value| post(dev.mcp(), dev.token(), &modern(method, params)).1;
    let names = |method: &str, list: &str, member: &str| -> Vec<String> {
        let answer = ask(method, json!({}));
        let items = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}"));
        items.iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
    };
    // Who may only call tools sees none of it.
    assert!(names("prompts/list", "prompts", "name").is_empty());
    assert!(names("resources/list", "resources", "uri").is_empty());
    let review = json!({ "name": "library.review", "arguments": { "title": "Emma", "tone": "dry" } });
    assert_eq!(code(&ask("prompts/get", review.clone())), "PV-PROMPT-UNKNOWN");
    let page = json!({ "uri": "library://pages/7" });
    assert_eq!(code(&ask("resources/read", page.clone())), "PV-RESOURCE-UNKNOWN");

    let role = "---\napiVersion: provost/v1\nkind: Role\nmetadata: { name: reader, tenant: acme }\n\
                spec: { rules: [{ prompts: ['library.*'], resources: ['library://*'] }] }\n---\n\
                apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: reader, tenant: acme }\n\
                spec: { role: reader, principals: [bot] }\n";
    let (done, said) = apply(&dev, role);
    assert!(done, "{said}");
    until(|| (names("prompts/list", "prompts", "name") == ["library.review"]).then_some(()));
    assert_eq!(names("resources/list", "resources", "uri"), ["library://cover", "library://index"]);
    assert_eq!(names("resources/templates/list", "resourceTemplates", "uriTemplate"), ["library://pages/{page}"]);
    let answer = ask("prompts/get", review);
    let first = &answer["result"]["messages"][0];
    assert_eq!((&first["role"], &first["content"]["text"]), (&json!("user"), &json!("Review “Emma” in a dry tone.")));
    let missing = ask("prompts/get", json!({ "name": "library.review", "arguments": {} }));
    assert_eq!(code(&missing), "PV-PLUGIN-ARGUMENTS", "{missing}");
    let answer = ask("resources/read", page);
    assert_eq!(answer["result"]["contents"][0]["text"], "page 7", "{answer}");
    let answer = ask("resources/read", json!({ "uri": "library://index" }));
    assert_eq!(answer["result"]["contents"][0]["text"], "acme/bot", "{answer}");
    let discovered = ask("server/discover", json!({}));
    let capabilities = &discovered["result"]["capabilities"];
    assert!(capabilities["prompts"].is_object() && capabilities["resources"].is_object(), "{discovered}");
    // They are on record like other calls.
    let query = text(&dev.cli(&["audit", "query", "--json", "--limit", "1000"]));
    assert!(query.contains("prompts/get") && query.contains("resources/read"), "{query}");
}

/// The records of calls of `text.slug`.
fn slug_records(dev: &Dev) -> Vec<Value> {
    let query = text(&dev.cli(&["audit", "query", "--json", "--tool", "text.slug", "--limit", "100000"]));
    let records = query.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.map(|line| line["record"].clone()).collect()
}

/// The versions that they name.
fn versions(records: &[Value]) -> usize {
    let digests: BTreeSet<&str> = records.iter().filter_map(|r| r["plugin.digest"].as_str()).collect();
    digests.len()
}

/// The calls that have a record of this phase, with this status.
fn ids<'a>(records: &'a [Value], phase: &str, status: Option<&str>) -> Vec<&'a str> {
    let of_it = records.iter().filter(|r| r["phase"] == phase && r["status"].as_str() == status);
    of_it.filter_map(|r| r["call_id"].as_str()).collect()
}

/// Twenty versions under calls: none fails, none is made twice, each version is in the records, and a client that
/// listens hears of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_follow_each_other_under_calls_and_none_fails() {
    const VERSIONS: u8 = 20;
    const CHANGED: &str = "notifications/tools/list_changed";
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let digest = put(&data, "v0.wasm", &version(0));
    let yaml = base() + &plugin("v0.wasm", &digest, "");
    let dev = Arc::new(tokio::task::block_in_place(|| Dev::start_in(&data, Some(&yaml), &[])));
    tokio::task::block_in_place(|| until(|| slug(&dev)["error"].is_null().then_some(())));
    let at_first = tokio::task::block_in_place(|| slug_records(&dev));
    let before = ids(&at_first, "intent", None);
    let mut listening = Socket::open(&dev, "").await;
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    listening.begin_modern("subscriptions/listen", wanted).await;
    let first = listening.until(|m| m.get("method").is_some()).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");

    let (ends, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (dev, ends, calls) = (dev.clone(), ends.clone(), calls.clone());
            thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let answer = slug(&dev);
                    assert_eq!(answer["result"]["content"][0]["text"], "any-node", "{answer}");
                    calls.fetch_add(1, Ordering::Relaxed);
                    // The log is read whole, again and again: what the callers add to it costs each time.
                    thread::sleep(Duration::from_millis(50));
                }
            })
        })
        .collect();
    for n in 1..=VERSIONS {
        let digest = put(&data, &format!("v{n}.wasm"), &version(n));
        let (done, said) = tokio::task::block_in_place(|| apply(&dev, &plugin(&format!("v{n}.wasm"), &digest, "")));
        assert!(done, "{said}");
        let told = listening.until(|m| m["method"] == CHANGED).await;
        assert_eq!(told["method"], CHANGED);
        // The callers go on: the next version comes when the log names this one.
        let named = usize::from(n) + 1;
        tokio::task::block_in_place(|| until(|| (versions(&slug_records(&dev)) == named).then_some(())));
    }
    ends.store(true, Ordering::Relaxed);
    for caller in callers {
        tokio::task::block_in_place(|| caller.join().unwrap());
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > u64::from(VERSIONS), "{calls} calls");
    // Each call of theirs is there once, with intent and outcome.
    let records = tokio::task::block_in_place(|| slug_records(&dev));
    assert_eq!(versions(&records), usize::from(VERSIONS) + 1);
    let of_callers = |phase: &str, status: Option<&str>| {
        let all = ids(&records, phase, status).into_iter();
        all.filter(|id| !before.contains(id)).map(str::to_owned).collect::<Vec<_>>()
    };
    let (intents, outcomes) = (of_callers("intent", None), of_callers("outcome", Some("ok")));
    let distinct: BTreeSet<&String> = outcomes.iter().collect();
    let calls = usize::try_from(calls).unwrap();
    assert_eq!((intents.len(), outcomes.len(), distinct.len()), (calls, calls, calls));
}
