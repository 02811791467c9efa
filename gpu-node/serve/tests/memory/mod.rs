//! More models than fit: they take turns, and who matters most goes first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use provost_gpu_serve::{ExclusiveTerms, GpuNode, Priority, WAIT_BOUNDS_MS, Waits};
use provost_types::{ChatRequest, Inference, InferenceErrorKind, TokenUsage};

use crate::common::{Models, chat, collect, sampled, until};
use crate::start_with;

/// Two of the models with what their requests need; three do not fit, even alone.
const ROOM_FOR_TWO: u64 = 1_250_000;
/// How long the mixed traffic lasts, in seconds, unless the environment says so.
const TRAFFIC_SECONDS: u64 = 3;
const TRAFFIC_VARIABLE: &str = "PROVOST_GPU_TRAFFIC_SECONDS";

/// Asks one model again and again, for one tenant after the other; gives how long each answer took. The
/// answer is always the same.
async fn asks(node: &GpuNode, model: &str, pause: Duration, is_over: impl Fn() -> bool) -> Vec<Duration> {
    let (mut took, mut first): (_, Option<(String, TokenUsage)>) = (Vec::new(), None);
    while !is_over() {
        tokio::time::sleep(pause).await;
        let tenant = format!("t{}", took.len() % 2);
        let request = ChatRequest { tenant, ..sampled(model, 7, 6) };
        let asked = Instant::now();
        let answer = collect(node, request).await.unwrap();
        took.push(asked.elapsed());
        let usage = node.usage();
        assert!(usage.weights + usage.reserved <= ROOM_FOR_TWO, "{usage:?}");
        assert_eq!(*first.get_or_insert_with(|| answer.clone()), answer, "a model that came back says the same");
    }
    took
}

#[tokio::test]
async fn three_models_share_the_room_of_two_under_mixed_traffic() {
    let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
    models.variant("tiny-chat", "third");
    let node = start_with(&models, |config| config.capacity_bytes = ROOM_FOR_TWO);
    let seconds = std::env::var(TRAFFIC_VARIABLE).ok().map_or(TRAFFIC_SECONDS, |text| text.parse().unwrap());
    let began = Instant::now();
    let is_over = || {
        let enough = node.counts().reloads >= 3;
        assert!(enough || began.elapsed() < Duration::from_secs(seconds + 120), "{:?}", node.counts());
        enough && began.elapsed() >= Duration::from_secs(seconds)
    };
    let (node_ref, is_over) = (&*node, &is_over);
    let clients = [("tiny-chat", 0), ("tiny-qwen3", 5), ("third", 40)]
        .map(|(model, pause_ms)| asks(node_ref, model, Duration::from_millis(pause_ms), is_over));
    let mut took: Vec<Duration> = futures::future::join_all(clients).await.into_iter().flatten().collect();
    took.sort_unstable();
    let counts = node.counts();
    assert_eq!(counts.refused.iter().sum::<u64>(), 0, "{counts:?}");
    assert!(counts.evictions >= 3 && counts.loads >= 6 && counts.reloads >= 3, "{counts:?}");
    assert!(counts.evictions + 2 >= counts.loads, "no more than two are there: {counts:?}");
    assert_eq!(counts.waits.counts.iter().sum::<u64>(), took.len() as u64, "each began once");
    assert!(waited_at_most(&counts.waits, 95) <= 60_000, "who waits longer is refused: {counts:?}");
    until("nobody runs", || node.counts().running == 0 && node.counts().waiting == 0).await;
    assert!(node.usage().weights < 3 * 400_000, "{:?}", node.usage());
    println!(
        "{} answers in {:.1} s: {} loads ({} again, {:.1} s), {} evictions; an answer took {:?} at p50, {:?} at p95, \
         {:?} at most; who asked waited for at most {} ms at p50, {} ms at p95; waits by bucket: {:?}",
        took.len(),
        began.elapsed().as_secs_f64(),
        counts.loads,
        counts.reloads,
        counts.loading_micros as f64 / 1e6,
        counts.evictions,
        quantile(&took, 50),
        quantile(&took, 95),
        quantile(&took, 100),
        waited_at_most(&counts.waits, 50),
        waited_at_most(&counts.waits, 95),
        counts.waits.counts,
    );
}

/// The bound of the bucket in which the wait is that so many of a hundred requests did not exceed.
fn waited_at_most(waits: &Waits, percent: u64) -> u64 {
    let rank = (waits.counts.iter().sum::<u64>() * percent).div_ceil(100).max(1);
    let mut below = 0;
    let reaches = |count: &u64| {
        below += count;
        below >= rank
    };
    let bucket = waits.counts.iter().position(reaches);
    bucket.and_then(|at| WAIT_BOUNDS_MS.get(at).copied()).unwrap_or(u64::MAX)
}

#[test]
fn the_bound_of_a_wait_is_that_of_its_bucket() {
    let mut waits = Waits::default();
    (waits.counts[0], waits.counts[3], waits.counts[13]) = (50, 45, 5);
    for (percent, expect) in [(50, 5), (51, 50), (95, 50), (96, u64::MAX)] {
        assert_eq!(waited_at_most(&waits, percent), expect, "{percent}");
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted[at]
}

#[tokio::test]
async fn a_critical_call_displaces_an_idle_model_at_once() {
    let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
    models.variant("tiny-chat", "later");
    models.variant("tiny-chat", "urgent");
    let node = start_with(&models, |config| {
        config.capacity_bytes = ROOM_FOR_TWO;
        // What is there stays for many minutes, were it not for critical calls.
        config.residency_loads = 10_000_000;
        config.early_eviction = false;
        config.priorities.insert("urgent".to_owned(), Priority::Critical);
    });
    for model in ["tiny-chat", "tiny-qwen3"] {
        collect(&node, chat(model, "hi", 3)).await.unwrap();
    }
    assert_eq!(node.counts().loads, 2);
    let later = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { collect(&node, chat("later", "hi", 3)).await })
    };
    until("the other one waits", || node.counts().waiting == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let counts = node.counts();
    assert_eq!((counts.evictions, counts.waiting), (0, 1), "models that nobody uses stay for their time");
    collect(&node, chat("urgent", "hi", 3)).await.unwrap();
    let counts = node.counts();
    assert_eq!((counts.evictions, counts.loads), (1, 3), "one of them went, and at once");
    assert!(!later.is_finished(), "the other one came before, and still waits");
    // A critical model that is there stays there, and the other one's turn has not come.
    collect(&node, chat("urgent", "hi", 3)).await.unwrap();
    assert_eq!(node.counts().evictions, 1);
    later.abort();
}

#[tokio::test]
async fn exclusive_use_drains_has_the_device_and_restores() {
    let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
    let node = start_with(&models, |_| {});
    for model in ["tiny-chat", "tiny-qwen3"] {
        collect(&node, chat(model, "hi", 3)).await.unwrap();
    }
    let mut running = node.chat(chat("tiny-chat", "go on", 4000)).await.unwrap();
    running.next().await.unwrap().unwrap();
    let terms = terms(Duration::from_secs(50));
    let asked = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.exclusive(terms).await })
    };
    let refused = loop {
        if let Err(refused) = collect(&node, chat("tiny-qwen3", "hi", 1)).await {
            break refused;
        }
    };
    assert_eq!(refused.kind, InferenceErrorKind::Busy, "{refused}");
    assert!(refused.message.contains("exclusive") && refused.retry_after_ms.unwrap() > 10_000, "{refused}");
    running.next().await.unwrap().unwrap();
    assert!(!asked.is_finished(), "what runs runs on");
    let second = node.exclusive(terms).await.unwrap_err();
    assert!(second.message.contains("exclusive"), "{second}");
    drop(running);
    let device = asked.await.unwrap().unwrap();
    until("all of it is the holder's", || {
        let usage = node.usage();
        (usage.weights, usage.reserved, node.kv_usage().capacity) == (0, usage.capacity, 0)
    })
    .await;
    assert!(device.beat());
    assert!(collect(&node, chat("tiny-qwen3", "hi", 1)).await.is_err());
    drop(device);
    until("both are back", || node.counts().reloads == 2).await;
    collect(&node, chat("tiny-qwen3", "hi", 1)).await.unwrap();
    assert_eq!(node.counts().reloads, 2);
}

#[tokio::test]
async fn a_holder_without_a_sign_of_life_loses_the_device() {
    let models = Models::new(&["tiny-chat"]);
    let node = start_with(&models, |_| {});
    let device = node.exclusive(terms(Duration::from_millis(50))).await.unwrap();
    until("its time is over", || device.is_over()).await;
    assert!(!device.beat());
    collect(&node, chat("tiny-chat", "hi", 1)).await.unwrap();
    // Who does not wait any more does not get it.
    let mut running = node.chat(chat("tiny-chat", "go on", 4000)).await.unwrap();
    running.next().await.unwrap().unwrap();
    let asked = tokio::time::timeout(Duration::from_millis(50), node.exclusive(terms(Duration::from_secs(50)))).await;
    assert!(asked.is_err());
    drop(running);
    until("requests are served again", || node.counts().running == 0).await;
    let served = async {
        while collect(&node, chat("tiny-chat", "hi", 1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), served).await.unwrap();
}

#[tokio::test]
async fn what_has_changed_on_disk_does_not_come_back_as_what_it_was() {
    let models = Models::new(&["tiny-chat"]);
    let node = start_with(&models, |_| {});
    collect(&node, chat("tiny-chat", "hi", 3)).await.unwrap();
    let device = node.exclusive(terms(Duration::from_secs(100))).await.unwrap();
    models.copy("tiny-qwen3", "tiny-chat");
    until("the change is noticed", || node.models().iter().any(|model| model.architecture == "qwen3")).await;
    drop(device);
    collect(&node, chat("tiny-chat", "hi", 3)).await.unwrap();
    let counts = node.counts();
    assert_eq!((counts.loads, counts.reloads), (2, 0), "the old one and the new one, each once: {counts:?}");
}

fn terms(heartbeat: Duration) -> ExclusiveTerms {
    ExclusiveTerms { drain: Duration::from_secs(60), heartbeat, most: Duration::from_secs(120) }
}

#[tokio::test]
async fn answers_wait_for_blocks_of_a_cache_that_is_full() {
    let models = Models::new(&["tiny-chat"]);
    // As large as the first answer needs, and no larger.
    let node = start_with(&models, |config| config.kv_cache_bytes = 1);
    let node = &node;
    let asks = (0..6).map(|seed| async move { collect(node, sampled("tiny-chat", seed, 30)).await.unwrap() });
    futures::future::join_all(asks).await;
    let usage = node.kv_usage();
    assert!(usage.held == 0 && usage.capacity > 0 && usage.capacity < 100_000, "{usage:?}");
    // One that needs more gets it, once nobody uses what there is.
    collect(node, sampled("tiny-chat", 1, 200)).await.unwrap();
    assert!(node.kv_usage().capacity > usage.capacity, "{:?}", node.kv_usage());
}

#[tokio::test]
async fn caches_that_nobody_uses_go_before_models() {
    let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
    let node = start_with(&models, |config| {
        config.capacity_bytes = ROOM_FOR_TWO;
        config.residency_loads = 0;
    });
    collect(&node, chat("tiny-chat", "hi", 3)).await.unwrap();
    let alone = node.kv_usage().capacity;
    assert!(alone > 250_000, "it takes half of what is free: {alone}");
    collect(&node, chat("tiny-qwen3", "hi", 3)).await.unwrap();
    assert_eq!(node.counts().evictions, 0, "both are there");
    assert!(node.kv_usage().capacity < alone, "{:?}", node.kv_usage());
}
