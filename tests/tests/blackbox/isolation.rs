//! Processes of stdio plugins within walls, on a whole node.

use std::path::Path;

use serde_json::json;

use crate::harness::{Dev, binary, call_tool, children, text, until, upstream_yaml};

fn get(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}

fn with_stdio(isolation: &str) -> String {
    upstream_yaml("http://127.0.0.1:9/mcp").replace(
        "mcp-http: { url: 'http://127.0.0.1:9/mcp' }",
        &format!("mcp-stdio: {{ command: '{}'{isolation} }}", binary("everything-rmcp").display()),
    )
}

fn descendants(parent: u32) -> Vec<u32> {
    let own = children(parent);
    let further: Vec<u32> = own.iter().flat_map(|pid| descendants(*pid)).collect();
    own.into_iter().chain(further).collect()
}

fn lives(pid: u32) -> bool {
    // A zombie waiting for a reaper has ended too.
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

#[test]
fn a_node_that_is_killed_leaves_no_process_of_its_plugins() {
    let mut dev = Dev::start(Some(&with_stdio(", isolation: { required: false }")), &[]);
    let answer = call_tool(&dev, "up.test_simple_text", json!({}));
    assert!(answer["result"]["content"][0]["text"].is_string(), "{answer}");
    let metrics = get(dev.info["metrics"].as_str().unwrap());
    for wall in ["network", "processes", "files", "user", "limits"] {
        let sample = format!("provost_plugin_wall{{tenant=\"acme\",plugin=\"up\",wall=\"{wall}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&sample));
        println!("{}", line.unwrap_or_else(|| panic!("no {sample} in {metrics}")));
    }
    let all = descendants(dev.child.id());
    assert!(!all.is_empty(), "no process to leave");
    dev.kill_9();
    until(|| (!all.iter().any(|pid| lives(*pid))).then_some(()));
}

#[test]
fn a_new_plugin_has_walls_without_asking() {
    let dev = Dev::start(Some(&with_stdio("")), &[]);
    let shown = text(&dev.cli(&["get", "Plugin", "up", "-o", "yaml"]));
    assert!(shown.contains("isolation:") && shown.contains("network: none"), "{shown}");
}
