//! Who runs beside a guest that misbehaves does not notice.

use std::{sync::Arc, time::Instant};

use provost_data_wasm::{PluginError, PluginSettings};
use tokio::task::JoinSet;

use crate::world::{
    FakeHost, HOSTILE, PATIENCE, TEXT, ask, call, engine_of, hostile_settings, hostile_with, plugin_of, said,
};

/// One thread for all: a guest that kept it would keep everybody.
#[tokio::test(flavor = "current_thread")]
async fn calls_beside_guests_that_compute_are_answered() {
    let engine = engine_of(8);
    let hostile = Arc::new(plugin_of(&engine, HOSTILE, hostile_settings(|_| {})));
    let text = plugin_of(&engine, TEXT, PluginSettings::default());
    hostile.tools().await.unwrap();
    let mut loops = JoinSet::new();
    for _ in 0..3 {
        let hostile = hostile.clone();
        loops.spawn(async move { hostile.call(&call("loop", "{}"), FakeHost::new()).await });
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(said(ask(&text, "slug", r#"{"text":"a b"}"#).await), "a-b");
    }
    assert!(began.elapsed() < PATIENCE / 2, "calls waited for loops: {:?}", began.elapsed());
    assert!(loops.try_join_next().is_none(), "the loops ended by themselves");
    loops.shutdown().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_place_back() {
    let plugin = hostile_with(|limits| limits.concurrency = 1);
    plugin.tools().await.unwrap();
    for tool in ["loop", "fetch"] {
        let call = call(tool, r#"{"text":"https://silent.example/"}"#);
        let dropped = tokio::time::timeout(std::time::Duration::from_millis(20), plugin.call(&call, FakeHost::new()));
        assert!(dropped.await.is_err(), "it ended");
        assert_eq!(said(ask(&plugin, "fine", r#"{"text":"free"}"#).await), "free");
    }
}

#[tokio::test]
async fn many_calls_share_few_places() {
    let plugin = Arc::new(plugin_of(&engine_of(2), TEXT, PluginSettings::default()));
    let mut calls = JoinSet::new();
    for i in 0..200 {
        let plugin = plugin.clone();
        calls.spawn(async move {
            let arguments = format!(r#"{{"text":"call {i}"}}"#);
            assert_eq!(said(ask(&plugin, "slug", &arguments).await), format!("call-{i}"));
        });
    }
    assert_eq!(calls.join_all().await.len(), 200);
}

#[tokio::test]
async fn who_finds_no_place_waits_no_longer_than_the_deadline() {
    let plugin = hostile_with(|limits| limits.concurrency = 1);
    plugin.tools().await.unwrap();
    let (silent, late) = (call("fetch", r#"{"text":"https://silent.example/"}"#), std::time::Duration::from_millis(50));
    let waiting = async {
        let call = crate::world::call_in(late, "fine", r#"{"text":"late"}"#);
        plugin.call(&call, FakeHost::new()).await
    };
    tokio::select! {
        biased;
        _ = plugin.call(&silent, FakeHost::new()) => panic!("it ended"),
        late = waiting => assert_eq!(late, Err(PluginError::Deadline)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_of_many_leave_the_pool_whole() {
    let engine = engine_of(4);
    let hostile = Arc::new(plugin_of(&engine, HOSTILE, hostile_settings(|limits| limits.memory_bytes = 8 << 20)));
    hostile.tools().await.unwrap();
    let mut calls = JoinSet::new();
    for i in 0..60 {
        let hostile = hostile.clone();
        calls.spawn(async move {
            match i % 3 {
                0 => assert!(matches!(ask(&hostile, "trap", "{}").await, Err(PluginError::Trap(_)))),
                1 => assert_eq!(ask(&hostile, "alloc", "{}").await, Err(PluginError::Memory(8 << 20))),
                // Memory of those before is not seen.
                _ => assert_eq!(said(ask(&hostile, "count", "{}").await), "1"),
            }
        });
    }
    assert_eq!(calls.join_all().await.len(), 60);
}
