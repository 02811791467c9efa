//! Processes that fail, and that they are started again.

use std::time::Duration;

use provost_data_pipeline::Reply;
use provost_data_tools::Limits;
use provost_types::Era;
use serde_json::json;

use crate::bench::*;

fn shell(script: &str, era: Era) -> provost_types::PluginSpec {
    stdio_spec("sh", &["-c", script], era)
}

#[tokio::test]
async fn a_process_that_does_not_run_says_why() {
    let missing = call(&plugin(stdio_spec("/no/such/program", &[], Era::Auto)), "t", json!({})).await;
    assert_eq!(pv_code(&missing), "PV-UPSTREAM-NOT-RUNNING");
    for era in [Era::Auto, Era::Legacy] {
        let ended = call(&plugin(shell("echo no licence >&2; exit 3", era)), "t", json!({})).await;
        assert_eq!(pv_code(&ended), "PV-UPSTREAM-NOT-RUNNING", "{era:?}");
        let Reply::Error(error) = &ended.reply else { panic!() };
        assert!(error.message.contains("no licence") && error.message.contains('3'), "{}", error.message);
    }
}

#[tokio::test]
async fn garbage_and_silence_end_in_errors() {
    // Shells start slowly on a busy machine; what ends by the limit alone need not wait as long.
    let (patient, short) = (Duration::from_secs(30), Duration::from_millis(500));
    let table = [
        (r#"while read l; do echo '{"jsonrpc":"2.0","id":2,"id":2}'; done"#, "PV-UPSTREAM-GARBAGE", patient),
        ("while read l; do head -c 20000 /dev/zero | tr '\\0' x; done", "PV-UPSTREAM-TOO-LARGE", patient),
        ("while read l; do echo just a log line; done", "PV-UPSTREAM-UNREACHABLE", short),
        (r#"while read l; do echo '{"level":"info"}'; done"#, "PV-UPSTREAM-UNREACHABLE", short),
        ("sleep 30", "PV-UPSTREAM-UNREACHABLE", short),
    ];
    for (script, code, connect_timeout) in table {
        let limits = Limits { connect_timeout, max_answer_bytes: 10_000, ..Limits::default() };
        let (_toolbox, plugin) = plugin_with(shell(script, Era::Legacy), limits);
        let done = call(&plugin, "t", json!({})).await;
        assert_eq!(pv_code(&done), code, "{script}: {:?}", done.reply);
    }
}

#[tokio::test]
async fn a_log_on_stdout_is_passed_over_as_text_and_as_json() {
    let fixture = env!("CARGO_BIN_EXE_everything-rmcp");
    let script = format!("echo started; echo '{{\"level\":30,\"id\":1,\"msg\":\"started\"}}'; exec {fixture}");
    let plugin = plugin(shell(&script, Era::Modern));
    assert_eq!(text(&call(&plugin, "greet", json!({"name": "a"})).await), "Hello, a!");
}

#[tokio::test]
async fn a_process_that_dies_in_a_call_is_started_again() {
    for way in [Way::StdioModern, Way::StdioLegacy] {
        let up = up(way).await;
        assert_eq!(text(&call(&up.plugin, "greet", json!({"name": "a"})).await), "Hello, a!");
        let died = call(&up.plugin, "crash", json!({})).await;
        assert_eq!(pv_code(&died), "PV-UPSTREAM-DIED", "{way:?}");
        let Reply::Error(error) = &died.reply else { panic!() };
        assert!(error.message.contains("70"), "the exit status is told: {}", error.message);
        assert_eq!(text(&call(&up.plugin, "greet", json!({"name": "b"})).await), "Hello, b!", "{way:?}");
    }
}

#[tokio::test]
async fn a_process_that_dies_in_the_middle_of_a_line_died() {
    let hello = r#"{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}}\n"#;
    // It answers `initialize`, whatever its id, and dies in the middle of the answer to what comes after.
    let script = format!(
        r#"read l; id=$(echo "$l" | sed 's/.*"id":\([0-9]*\|"[^"]*"\).*/\1/'); printf '{hello}' "$id"; read l; read l; printf '{{"jsonrpc":"2.0","id":2,"resu'; echo out of memory >&2; exit 9"#
    );
    let done = call(&plugin(shell(&script, Era::Legacy)), "t", json!({})).await;
    let Reply::Error(error) = &done.reply else { panic!("{:?}", done.reply) };
    assert_eq!(pv_code(&done), "PV-UPSTREAM-DIED", "{}", error.message);
    assert!(error.message.contains('9') && error.message.contains("out of memory"), "{}", error.message);
}

#[tokio::test]
async fn the_environment_is_what_the_spec_says() {
    // The fixture is a shell that answers `initialize`, then tells its environment on stderr.
    let mut spec = shell("env >&2; exit 1", Era::Legacy);
    if let provost_types::PluginSource::McpStdio(stdio) = &mut spec.source {
        stdio.env.insert("PLAIN".into(), "seen".into());
    }
    let done = call(&plugin(spec), "t", json!({})).await;
    let Reply::Error(error) = &done.reply else { panic!() };
    assert!(error.message.contains("PLAIN=seen"), "{}", error.message);
    assert!(!error.message.contains("CARGO"), "the environment leaks: {}", error.message);
}

#[tokio::test]
async fn a_removed_plugins_process_group_ends() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let fixture = env!("CARGO_BIN_EXE_everything-rmcp");
    // The shell stays, and so does a child of its own.
    let script = format!("sleep 300 & echo $! > {}; {fixture}; wait", pid_file.display());
    let (toolbox, plugin) = plugin_with(shell(&script, Era::Modern), Limits::default());
    assert_eq!(text(&call(&plugin, "greet", json!({"name": "a"})).await), "Hello, a!");
    let pid = std::fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    let runs = |pid: &str| std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(runs(&pid));
    drop(plugin);
    toolbox.stop();
    eventually("the grandchild ends", async || {
        // A zombie waiting for a reaper has ended too.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !runs(&pid) || status.contains("State:\tZ")
    })
    .await;
}
