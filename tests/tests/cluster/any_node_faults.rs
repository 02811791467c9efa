//! Nodes that serve calls are restarted one after another, under load.
//!
//! `PROVOST_ANY_NODE_SECONDS` makes the load last longer than its few seconds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    any_node_scene::{LegacyClient, NODES, answer_in, ready, scene},
    harness::{Process, STOP_LIMIT, modern, upstream_yaml},
    processes::Fleet,
};

/// Calls a second, of all workers together.
const RATE: u32 = 120;
/// Each keeps a connection to one node as long as that takes requests.
const WORKERS: usize = 24;
/// How long one call takes upstream; of every tenth call, longer, so that some are always in flight.
const CALL_MS: (u64, u64) = (5, 700);
/// Patience with one call.
const LIMIT: Duration = Duration::from_secs(20);
/// Failures kept word for word.
const MAX_KEPT: usize = 5;

fn seconds() -> Duration {
    let given = std::env::var("PROVOST_ANY_NODE_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(given.unwrap_or(4))
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    succeeded: AtomicU64,
    /// Went to another node because theirs took no connection.
    moved: AtomicU64,
    /// By the node that they used.
    failures: Mutex<BTreeMap<usize, Vec<String>>>,
}

/// Agents that call all the time.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(fleet: &Fleet, token: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let urls = NODES.map(|node| fleet.servers[node].mcp());
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Seen>::default());
        let worker = |at: usize| {
            let worker = Worker { urls: urls.clone(), token: token.to_owned(), seen: seen.clone(), stop: stop.clone() };
            tokio::spawn(worker.run(at))
        };
        let workers = (0..WORKERS).map(worker).collect();
        Self { stop, seen, workers }
    }

    async fn stop(self) -> Arc<Seen> {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await.unwrap();
        }
        self.seen
    }
}

struct Worker {
    urls: [String; 3],
    token: String,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    async fn run(self, number: usize) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut at = number % self.urls.len();
        let mut tick = tokio::time::interval(Duration::from_secs(1) * u32::try_from(WORKERS).unwrap() / RATE);
        for n in number.. {
            tick.tick().await;
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let ms = if n % 10 == 0 { CALL_MS.1 } else { CALL_MS.0 };
            let began = Instant::now();
            loop {
                match self.call(&client, at, ms).await {
                    Ok(()) => {
                        self.seen.succeeded.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    // No connection: nothing was sent, and any node will do.
                    Err(Failure::Unsent(_)) if began.elapsed() < LIMIT => {
                        self.seen.moved.fetch_add(1, Ordering::SeqCst);
                        at = (at + 1) % self.urls.len();
                    }
                    Err(Failure::Unsent(why) | Failure::Other(why)) => {
                        self.seen.failures.lock().unwrap().entry(at).or_default().push(why);
                        at = (at + 1) % self.urls.len();
                        break;
                    }
                }
            }
        }
    }

    async fn call(&self, client: &reqwest::Client, at: usize, ms: u64) -> Result<(), Failure> {
        let body = modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": ms } }));
        let sent = client
            .post(&self.urls[at])
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "up.slow")
            .json(&body)
            .timeout(LIMIT)
            .send();
        let response = sent.await.map_err(|e| {
            let why = format!("{e:?}");
            if e.is_connect() { Failure::Unsent(why) } else { Failure::Other(why) }
        })?;
        let status = response.status();
        let said = response.text().await.map_err(|e| Failure::Other(format!("{e:?}")))?;
        let answered = answer_in(&said)["result"]["content"].is_array();
        if answered { Ok(()) } else { Err(Failure::Other(format!("{status}: {said}"))) }
    }
}

enum Failure {
    /// The connection was not made.
    Unsent(String),
    Other(String),
}

fn kept(failures: &BTreeMap<usize, Vec<String>>) -> Vec<&String> {
    failures.values().flatten().take(MAX_KEPT).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_under_load_fails_no_call() {
    let up = Process::everything("modern");
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("roll", &upstream_yaml(&up.url), "up.count_begun"));
    let client = LegacyClient::open(&fleet.servers["dp-1"].mcp(), &token, json!({})).await;
    let load = Load::start(&fleet, &token);
    for node in NODES {
        tokio::time::sleep(seconds() / 4).await;
        tokio::task::block_in_place(|| {
            let (took, status) = fleet.get(node).terminate();
            assert!(status.success() && took < STOP_LIMIT, "{node}: {status} after {took:?}");
            fleet.start(node);
            ready(&fleet, node, &token, "up.count_begun");
        });
        // The session of before goes on, at the node that has just come, too.
        let answer = client.call(&fleet.servers[node].mcp(), "up.test_simple_text", json!({})).await;
        assert!(answer["result"]["content"].is_array(), "{node}: {answer}");
    }
    let seen = load.stop().await;
    let (succeeded, moved) = (seen.succeeded.load(Ordering::SeqCst), seen.moved.load(Ordering::SeqCst));
    println!("{succeeded} calls succeeded; {moved} times another node was taken before anything was sent");
    let failures = seen.failures.lock().unwrap();
    assert!(failures.is_empty(), "calls failed: {:#?}", kept(&failures));
    assert!(succeeded > 300 && moved > 0, "too little was done: {succeeded}, {moved}");
}
