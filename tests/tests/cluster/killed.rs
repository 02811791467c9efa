//! A node that serves calls is killed under an open loop of calls: they come at their rate, whatever became
//! of those before.
//!
//! `PROVOST_KILL_RATE` (calls a second) and `PROVOST_KILL_SECONDS` make it harder.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use provost_tests::everything::{EraChoice, Everything, serve_http};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    any_node_scene::{LEGACY, LegacyClient, NODES, answer_in, scene},
    harness::{modern, text, upstream_yaml},
    processes::{Fleet, SOON, provost},
};

/// What two loaded cores hold, in a build for debugging.
const RATE: u32 = 60;
const SECONDS: u32 = 6;
/// Agents of each era.
const AGENTS: usize = 12;
/// How long one call takes upstream; every tenth takes longer, so that some are always in flight.
const CALL_MS: (u64, u64) = (5, 700);
/// Patience with one call.
const LIMIT: Duration = Duration::from_secs(30);
/// A call that goes to the node so long after the signal must find that nobody takes it.
const DYING: Duration = Duration::from_secs(1);
/// Failures that are shown.
const MAX_SHOWN: usize = 5;

fn wanted(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// An agent that keeps to one node, and to its session, for as long as the node takes connections.
struct Agent {
    urls: [String; 3],
    token: String,
    http: reqwest::Client,
    home: AtomicUsize,
    /// The legacy session.
    session: Option<String>,
    moved: AtomicU64,
}

/// How a call ended.
struct Ended {
    /// The node that had it.
    at: usize,
    /// When it was sent there.
    sent: Instant,
    /// From the moment when it was due.
    took: Duration,
    is_legacy: bool,
    failure: Option<String>,
}

enum Failure {
    /// The connection was not made.
    Unsent(String),
    Other(String),
}

impl Agent {
    async fn call(self: Arc<Self>, id: String, ms: u64, due: Instant) -> Ended {
        loop {
            let (at, sent) = (self.home.load(Ordering::SeqCst), Instant::now());
            let failure = match self.send(at, &id, ms).await {
                Ok(()) => None,
                Err(Failure::Unsent(_)) if due.elapsed() < LIMIT => {
                    // Nothing was sent: any node will do.
                    self.leave(at);
                    continue;
                }
                Err(Failure::Unsent(why) | Failure::Other(why)) => {
                    self.leave(at);
                    Some(why)
                }
            };
            return Ended { at, sent, took: due.elapsed(), is_legacy: self.session.is_some(), failure };
        }
    }

    /// Takes another node, unless a call beside has done so.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.urls.len();
        if self.home.compare_exchange(at, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.moved.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn send(&self, at: usize, id: &str, ms: u64) -> Result<(), Failure> {
        let params = json!({ "name": "up.slow", "arguments": { "ms": ms, "id": id } });
        let request = self.http.post(&self.urls[at]).bearer_auth(&self.token).timeout(LIMIT);
        let request = request.header("accept", "application/json, text/event-stream");
        let request = match &self.session {
            Some(session) => {
                let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
                request.header("mcp-session-id", session).header("mcp-protocol-version", LEGACY).json(&body)
            }
            None => {
                let mut body = modern("tools/call", params);
                body["id"] = json!(id);
                let request = request.header("mcp-protocol-version", "2026-07-28");
                request.header("mcp-method", "tools/call").header("mcp-name", "up.slow").json(&body)
            }
        };
        let response = request.send().await.map_err(|e| {
            let why = format!("{e:?}");
            if e.is_connect() { Failure::Unsent(why) } else { Failure::Other(why) }
        })?;
        let status = response.status();
        let said = response.text().await.map_err(|e| Failure::Other(format!("{e:?}")))?;
        let is_answer = answer_in(&said)["result"]["content"].is_array();
        if is_answer { Ok(()) } else { Err(Failure::Other(format!("{status}: {said}"))) }
    }
}

/// Calls of one tool by their record: the id of the request, and whether there is an intent and an outcome.
fn recorded(fleet: &Fleet) -> HashMap<String, (String, BTreeSet<String>)> {
    let dir = fleet.servers["cp-1"].data().join("audit");
    let args = ["audit", "query", "--json", "--limit", "10000000", "--tenant", "acme", "--dir"];
    let output = provost().args(args).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let mut calls: HashMap<String, (String, BTreeSet<String>)> = HashMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let record = serde_json::from_str::<Value>(line).unwrap()["record"].take();
        if record["gen_ai.tool.name"] != "up.slow" {
            continue;
        }
        let part = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let call = calls.entry(part("call_id")).or_default();
        if !part("jsonrpc.request.id").is_empty() {
            call.0 = part("jsonrpc.request.id").trim_matches('"').to_owned();
        }
        call.1.insert(part("phase"));
    }
    calls
}

fn shown<'a>(failures: impl Iterator<Item = &'a Ended>) -> Vec<String> {
    let show = |e: &Ended| format!("{} (legacy: {}): {}", NODES[e.at], e.is_legacy, e.failure.as_deref().unwrap_or(""));
    failures.take(MAX_SHOWN).map(show).collect()
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_killed_under_load_costs_only_the_calls_that_it_ran() {
    let (rate, seconds) = (wanted("PROVOST_KILL_RATE", RATE), wanted("PROVOST_KILL_SECONDS", SECONDS));
    let upstream = Everything::new(EraChoice::Modern);
    let serving = serve_http(upstream.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = serving.url();
    // On a machine that is too slow for the rate calls wait, and do not fail.
    let documents = upstream_yaml(&url).replace("timeoutMs: 5000", "timeoutMs: 25000");
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("killed", &documents, "up.count_begun"));
    let urls = NODES.map(|node| fleet.servers[node].mcp());

    let mut agents = Vec::new();
    for n in 0..AGENTS * 2 {
        let home = n % NODES.len();
        let session = match n % 2 {
            0 => None,
            _ => Some(LegacyClient::open(&urls[home], &token, json!({})).await.session),
        };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (home, moved) = (AtomicUsize::new(home), AtomicU64::new(0));
        agents.push(Arc::new(Agent { urls: urls.clone(), token: token.clone(), http, home, session, moved }));
    }

    let total = rate * seconds;
    let began = Instant::now();
    let half = began + Duration::from_secs(1) * seconds / 2;
    let mut calls = JoinSet::new();
    let mut killed = None;
    for n in 0..total {
        let due = began + Duration::from_secs(1) * n / rate;
        tokio::time::sleep_until(due.into()).await;
        if killed.is_none() && due >= half {
            fleet.get("dp-1").signal(Signal::KILL);
            killed = Some(Instant::now());
        }
        let ms = if n % 10 == 0 { CALL_MS.1 } else { CALL_MS.0 };
        calls.spawn(agents[n as usize % agents.len()].clone().call(format!("call-{n}"), ms, due));
    }
    let offered = began.elapsed();
    let killed = killed.expect("the node was killed");
    let ended = calls.join_all().await;
    tokio::task::block_in_place(|| fleet.get("dp-1").ended(SOON));

    // What its clients and those of other nodes saw.
    let (well, failed): (Vec<&Ended>, Vec<&Ended>) = ended.iter().partition(|e| e.failure.is_none());
    let elsewhere = failed.iter().filter(|e| e.at != 0).copied();
    assert_eq!(elsewhere.clone().count(), 0, "calls at nodes that lived failed: {:#?}", shown(elsewhere));
    let late = failed.iter().filter(|e| e.sent > killed + DYING).copied();
    assert_eq!(late.clone().count(), 0, "calls were lost long after the kill: {:#?}", shown(late));
    assert!(
        failed.len() <= rate as usize * 2,
        "{} calls were lost: {:#?}",
        failed.len(),
        shown(failed.iter().copied())
    );
    let went_on = agents.iter().filter(|a| a.session.is_some() && a.moved.load(Ordering::SeqCst) > 0).count();
    assert!(went_on >= AGENTS / NODES.len(), "{went_on} legacy sessions went on elsewhere");
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for e in &well {
        let when = if e.sent < killed { "before" } else { "after" };
        times.entry(when).or_default().push(e.took);
    }
    println!(
        "{total} calls offered in {offered:?} ({rate}/s): {} answered, {} lost on the node that was killed, {} agents \
         moved, {went_on} of them in their legacy session",
        well.len(),
        failed.len(),
        agents.iter().filter(|a| a.moved.load(Ordering::SeqCst) > 0).count(),
    );
    for (when, times) in &mut times {
        times.sort_unstable();
        let [p50, p99] = [50, 99].map(|p| percentile(times, p));
        println!("{when}: p50 {p50:?}, p99 {p99:?}, max {:?}", times.last());
    }

    // Nothing ran twice, and nothing ran without a record that it would, and one of how it ended: the node
    // that died says at its next start of what it had begun that this is not known.
    let executed = upstream.begun_by_id();
    let twice: Vec<_> = executed.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "executed more than once: {twice:?}");
    assert!(executed.len() >= well.len());
    tokio::task::block_in_place(|| {
        fleet.start("dp-1");
        let mut last = String::new();
        let until = Instant::now() + SOON * 2;
        loop {
            let calls = recorded(&fleet);
            let of: HashMap<&str, &BTreeSet<String>> =
                calls.values().map(|(id, phases)| (id.as_str(), phases)).collect();
            let has = |id: &String, phase: &str| of.get(id.as_str()).is_some_and(|phases| phases.contains(phase));
            let unannounced = executed.keys().filter(|id| !has(id, "intent")).count();
            let open = calls.values().filter(|(_, p)| p.contains("intent") && !p.contains("outcome")).count();
            if unannounced == 0 && open == 0 {
                println!(
                    "{} executed, each once; {} calls recorded, each from intent to outcome",
                    executed.len(),
                    calls.len()
                );
                break;
            }
            let now = format!("{unannounced} executed without intent, {open} intents without outcome");
            assert!(Instant::now() < until, "{now} (before: {last})");
            last = now;
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}
