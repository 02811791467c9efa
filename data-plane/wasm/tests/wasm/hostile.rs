//! Every way to use something up ends that call, with an error that says which bound it was.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use provost_data_wasm::{LogLevel, PluginAnswer, PluginError};
use serde_json::json;

use crate::world::{FakeHost, PATIENCE, ask, call, call_in, hostile, hostile_with, said, wait_for};

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_loop_ends_at_its_deadline() {
    let plugin = hostile();
    plugin.tools().await.unwrap();
    for tool in ["loop", "loop-in-host"] {
        let began = Instant::now();
        let ended = plugin.call(&call_in(SHORT, tool, "{}"), FakeHost::new()).await;
        assert_eq!(ended, Err(PluginError::Deadline), "{tool}");
        assert!(began.elapsed() >= SHORT && began.elapsed() < PATIENCE / 2, "{tool}: {:?}", began.elapsed());
    }
    assert_eq!(said(ask(&plugin, "fine", r#"{"text":"alive"}"#).await), "alive");
}

#[tokio::test]
async fn a_call_that_waits_for_the_host_ends_at_its_deadline() {
    let plugin = hostile();
    plugin.tools().await.unwrap();
    let call = call_in(SHORT, "fetch", r#"{"text":"https://silent.example/"}"#);
    assert_eq!(plugin.call(&call, FakeHost::new()).await, Err(PluginError::Deadline));
}

#[tokio::test]
async fn computing_has_a_bound_of_its_own_and_waiting_is_none() {
    let most = Duration::from_millis(50);
    let plugin = hostile_with(|limits| limits.compute = most);
    plugin.tools().await.unwrap();
    // With a deadline that nobody waits for: also where it asks the host without end, and after it was moved.
    for tool in ["loop", "loop-in-host"] {
        let began = Instant::now();
        assert_eq!(ask(&plugin, tool, "{}").await, Err(PluginError::Compute(most)), "{tool}");
        assert!(began.elapsed() >= most && began.elapsed() < PATIENCE / 2, "{tool}: {:?}", began.elapsed());
    }
    let waits = call_in(most * 4, "fetch", r#"{"text":"https://silent.example/"}"#);
    assert_eq!(plugin.call(&waits, FakeHost::new()).await, Err(PluginError::Deadline));
    assert_eq!(said(ask(&plugin, "fine", r#"{"text":"alive"}"#).await), "alive");
    // To be loaded is nobody's call.
    let strict = hostile_with(|limits| limits.compute = Duration::ZERO);
    assert!(!strict.tools().await.unwrap().is_empty());
}

#[tokio::test]
async fn memory_without_end_is_refused() {
    let plugin = hostile_with(|limits| limits.memory_bytes = 16 << 20);
    assert_eq!(ask(&plugin, "alloc", "{}").await, Err(PluginError::Memory(16 << 20)));
    // Who can do with less, may.
    let blocks: usize = said(ask(&plugin, "alloc-politely", "{}").await).parse().unwrap();
    assert!((8..16).contains(&blocks), "{blocks} MiB");
    assert_eq!(said(ask(&plugin, "fine", r#"{"text":"alive"}"#).await), "alive");
}

#[tokio::test]
async fn crashes_are_errors() {
    let plugin = hostile();
    for (tool, arguments) in
        [("trap", r#"{"text":"on purpose"}"#), ("stack", r#"{"n":100000000}"#), ("read-outside", "{}")]
    {
        let ended = ask(&plugin, tool, arguments).await;
        assert!(matches!(&ended, Err(PluginError::Trap(why)) if !why.is_empty()), "{tool}: {ended:?}");
    }
    let outside = ask(&plugin, "read-outside", "{}").await;
    assert_eq!(outside, Err(PluginError::Trap("out of bounds memory access".to_owned())));
    assert_eq!(said(ask(&plugin, "fine", r#"{"text":"alive"}"#).await), "alive");
}

#[tokio::test]
async fn an_answer_has_a_bound_whatever_memory_there_is() {
    let hundred_megabytes = json!({"n": 100 << 20}).to_string();
    let small = hostile();
    assert_eq!(ask(&small, "large", &hundred_megabytes).await, Err(PluginError::Memory(64 << 20)));
    let roomy = hostile_with(|limits| limits.memory_bytes = 512 << 20);
    // Not even copied: the engine stops before.
    assert_eq!(ask(&roomy, "large", &hundred_megabytes).await, Err(PluginError::TooLarge(5 << 20)));
    // Copied, and more than the bound as JSON.
    assert_eq!(ask(&roomy, "large", &json!({"n": 4 << 20}).to_string()).await, Err(PluginError::TooLarge(4 << 20)));
    let many = ask(&roomy, "many", r#"{"n":10000}"#).await;
    assert!(matches!(many, Err(PluginError::TooLarge(_))), "{many:?}");
    assert_eq!(said(ask(&roomy, "large", r#"{"n":1000000}"#).await).len(), 1_000_000);
}

#[tokio::test]
async fn what_is_not_json_does_not_leave() {
    let plugin = hostile();
    for text in ["{", "[1]", "null", "", r#"{"a":1,"a":2}"#, r#"{}},"isError":true,"x":{"#] {
        for tool in ["structured", "other", "ask"] {
            let ended = ask(&plugin, tool, &json!({"text": text}).to_string()).await;
            assert!(matches!(ended, Err(PluginError::Json { .. })), "{tool} {text}: {ended:?}");
        }
    }
    let whole = ask(&plugin, "structured", r#"{"text":"{\"a\": [1.50]}"}"#).await.unwrap();
    let PluginAnswer::Complete { body, .. } = whole else { panic!("it asks") };
    assert_eq!(body.as_str(), r#"{"content":[],"structuredContent":{"a": [1.50]}}"#);
}

#[tokio::test]
async fn what_a_plugin_says_of_itself_is_cut() {
    let plugin = hostile();
    let long = r#"{"text":"long ","n":100000}"#;
    let Err(PluginError::Failed(why)) = ask(&plugin, "failed", long).await else { panic!() };
    assert!(why.starts_with("long long") && why.len() <= 4 << 10);
    let Err(PluginError::InvalidParams(why)) = ask(&plugin, "invalid", long).await else { panic!() };
    assert!(why.len() <= 4 << 10);
    assert_eq!(ask(&plugin, "unknown", "{}").await, Err(PluginError::UnknownTool("unknown".to_owned())));
}

#[tokio::test]
async fn a_flood_of_lines_is_cut_off_and_counted() {
    let plugin = hostile_with(|limits| limits.log_bytes = 1 << 10);
    let host = FakeHost::new();
    let arguments = json!({"n": 10_000, "text": "x".repeat(90)}).to_string();
    assert_eq!(said(plugin.call(&call("flood", &arguments), host.clone()).await), "done");
    let lines = host.lines.lock().unwrap();
    let (level, last) = lines.last().unwrap();
    assert_eq!(*level, LogLevel::Warn);
    let passed = lines.len() - 1;
    assert!((8..=11).contains(&passed), "{passed} lines");
    assert_eq!(*last, format!("{} lines over the bound of a call were dropped", 10_000 - passed));
}

#[tokio::test]
async fn long_lines_are_cut() {
    let (plugin, host) = (hostile(), FakeHost::new());
    let arguments = json!({"n": 1, "text": "y".repeat(100_000)}).to_string();
    assert_eq!(said(plugin.call(&call("flood", &arguments), host.clone()).await), "done");
    assert_eq!(host.lines.lock().unwrap()[0].1.len(), 4 << 10);
}

#[tokio::test]
async fn who_goes_on_after_the_caller_went_is_stopped() {
    let plugin = hostile();
    plugin.tools().await.unwrap();
    for tool in ["loop", "loop-in-host", "until-cancelled"] {
        let host = FakeHost::new();
        let call = call(tool, "{}");
        let cancel = async {
            wait_for(|| host.looks.load(Ordering::SeqCst) > 3).await;
            host.is_cancelled.store(true, Ordering::SeqCst);
        };
        let (ended, ()) = tokio::join!(plugin.call(&call, host.clone()), cancel);
        assert_eq!(ended, Err(PluginError::Cancelled), "{tool}");
    }
}

#[tokio::test]
async fn work_within_the_bounds_ends_well() {
    // Some tens of interruptions do not change what is computed.
    let plugin = hostile();
    assert_eq!(said(ask(&plugin, "work", r#"{"n":40000000}"#).await), "0");
}
