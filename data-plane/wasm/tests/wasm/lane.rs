//! A call that computes for long goes on at a low priority, and is the same call.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use provost_data_wasm::PluginError;
use serde_json::json;

use crate::world::{FakeHost, PATIENCE, call, call_in, hostile, hostile_with, said, thread, wait_for};

/// Threads of calls that compute for long.
const SLOW: &str = "plugin-slow";

fn has_moved(host: &FakeHost) -> bool {
    host.threads.lock().unwrap().contains(SLOW)
}

#[tokio::test]
async fn a_short_call_stays_where_it_began() {
    let (plugin, host) = (hostile(), FakeHost::new());
    assert_eq!(said(plugin.call(&call("flood", r#"{"n":3,"text":"here"}"#), host.clone()).await), "done");
    assert_eq!(host.threads.lock().unwrap().iter().collect::<Vec<_>>(), [&thread()]);
}

#[tokio::test]
async fn a_long_one_is_moved_and_computes_the_same() {
    let (plugin, host) = (hostile(), FakeHost::new());
    assert_eq!(said(plugin.call(&call("work", r#"{"n":100000000}"#), host.clone()).await), "0");
    assert!(has_moved(&host), "{:?}", host.threads);
}

#[tokio::test]
async fn a_call_that_was_moved_is_cancelled_by_its_flag() {
    let (plugin, host) = (hostile(), FakeHost::new());
    plugin.tools().await.unwrap();
    let cancel = async {
        wait_for(|| has_moved(&host)).await;
        host.is_cancelled.store(true, Ordering::SeqCst);
    };
    let call = call("until-cancelled", "{}");
    let (ended, ()) = tokio::join!(plugin.call(&call, host.clone()), cancel);
    assert_eq!(ended, Err(PluginError::Cancelled));
}

#[tokio::test]
async fn a_call_that_was_moved_and_is_dropped_ends_and_gives_its_place_back() {
    let plugin = hostile_with(|limits| limits.concurrency = 1);
    plugin.tools().await.unwrap();
    let host = FakeHost::new();
    let endless = call("loop", "{}");
    tokio::select! {
        biased;
        ended = plugin.call(&endless, host.clone()) => panic!("it ended: {ended:?}"),
        () = wait_for(|| has_moved(&host)) => {}
    }
    // Nothing of the call is left.
    wait_for(|| Arc::strong_count(&host) == 1).await;
    assert_eq!(said(plugin.call(&call("fine", r#"{"text":"free"}"#), FakeHost::new()).await), "free");
}

#[tokio::test]
async fn the_deadline_of_a_call_that_was_moved_holds() {
    let (plugin, host) = (hostile(), FakeHost::new());
    plugin.tools().await.unwrap();
    // Where the machine is busy it takes a while until it runs at all.
    let time = Duration::from_millis(1_500);
    let began = Instant::now();
    let ended = plugin.call(&call_in(time, "loop", "{}"), host.clone()).await;
    assert_eq!(ended, Err(PluginError::Deadline));
    assert!(has_moved(&host) && began.elapsed() >= time && began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    wait_for(|| Arc::strong_count(&host) == 1).await;
}

#[tokio::test]
async fn crashes_and_bounds_are_the_same_errors_there() {
    let plugin = hostile_with(|limits| limits.memory_bytes = 48 << 20);
    let host = FakeHost::new();
    assert_eq!(plugin.call(&call("alloc", "{}"), host).await, Err(PluginError::Memory(48 << 20)));
    // A large answer is read there.
    let roomy = hostile_with(|limits| limits.memory_bytes = 512 << 20);
    let large = roomy.call(&call("large", &json!({"n": 3 << 20}).to_string()), FakeHost::new()).await;
    assert_eq!(said(large).len(), 3 << 20);
}
