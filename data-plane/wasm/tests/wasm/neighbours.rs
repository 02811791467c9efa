//! Who runs beside a guest that misbehaves does not notice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use provost_data_wasm::{PluginError, PluginSettings};
use provost_mcp::RawJson;
use provost_types::Name;
use serde_json::json;
use tokio::task::JoinSet;

use crate::world::{
    FakeHost, HOSTILE, PATIENCE, TEXT, ask, call, call_in, engine_of, hostile_settings, hostile_with, plugin_of, said,
    wait_for,
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

#[tokio::test]
async fn one_tenant_never_has_all_places() {
    let engine = engine_of(4);
    let plugin = |tenant: &str| {
        let tenant = Some(Name::new(tenant).unwrap());
        Arc::new(plugin_of(&engine, HOSTILE, PluginSettings { tenant, ..hostile_settings(|_| {}) }))
    };
    let (plugins, other) = ([plugin("acme"), plugin("acme")], plugin("beta"));
    for plugin in plugins.iter().chain([&other]) {
        plugin.tools().await.unwrap();
    }
    // Six calls of two plugins, each of which waits for a response: three find a place.
    let host = FakeHost::new();
    let mut waiting = JoinSet::new();
    for n in 0..6 {
        let (plugin, host) = (plugins[n % 2].clone(), host.clone());
        waiting.spawn(async move { plugin.call(&call("fetch", r#"{"text":"https://silent.example/"}"#), host).await });
    }
    let sent = || host.requests.lock().unwrap().len();
    wait_for(|| sent() == 3).await;
    assert_eq!(said(ask(&other, "fine", r#"{"text":"room"}"#).await), "room");
    let late = call_in(Duration::from_millis(50), "fine", r#"{"text":"late"}"#);
    assert_eq!(plugins[0].call(&late, FakeHost::new()).await, Err(PluginError::Deadline));
    // Who is called by a call that has a place does not wait for one.
    let mut nested = call("fine", r#"{"text":"nested"}"#);
    nested.depth = 1;
    assert_eq!(plugins[1].call(&nested, FakeHost::new()).await, Err(PluginError::Busy));
    assert_eq!((sent(), waiting.len()), (3, 6), "no other began, and none ended");
    waiting.shutdown().await;
    assert_eq!(said(ask(&plugins[0], "fine", r#"{"text":"free"}"#).await), "free");
}

#[tokio::test]
async fn loads_of_one_tenant_never_have_all_places() {
    let engine = engine_of(4);
    let plugin = |tenant: &str, config: Option<RawJson>| {
        let tenant = Some(Name::new(tenant).unwrap());
        plugin_of(&engine, HOSTILE, PluginSettings { tenant, config, ..hostile_settings(|_| {}) })
    };
    let own = plugin("acme", None);
    own.tools().await.unwrap();
    // Eight plugins that never say what they have, each until its time to load is over: one finds a place.
    let mut loads = JoinSet::new();
    for _ in 0..8 {
        let looping = plugin("acme", Some(RawJson::from(json!({"loop": true}))));
        loads.spawn(async move { looping.tools().await });
    }
    // They have begun at the latest while the first of these is loaded.
    for _ in 0..10 {
        plugin("beta", None).tools().await.unwrap();
    }
    assert_eq!(said(ask(&own, "fine", r#"{"text":"room"}"#).await), "room");
    assert!(loads.try_join_next().is_none(), "others waited for the loads to end");
    loads.shutdown().await;
    plugin("acme", None).tools().await.unwrap();
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
