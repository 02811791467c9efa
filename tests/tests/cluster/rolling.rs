//! Every process of a cluster is restarted in turn while people write and agents call.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use provost_wire::{
    WIRE_VERSION,
    admin::{ApplyRequest, Document, GetRequest},
    connect_admin,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    harness::{Process, STOP_LIMIT, modern, upstream_yaml},
    operators::three,
    processes::{Fleet, SOON},
    restore::apply,
};

/// How long one tool call takes: some are always in flight, and most of those that a SIGTERM meets began
/// more than [`ON_ITS_WAY`] before it, and must finish.
const CALL_MS: u64 = 900;
/// Patience with one call, and with one write.
const LIMIT: Duration = Duration::from_secs(10);
/// A call that begins so shortly before SIGTERM may still be on its way to the process.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// Callers at each data-plane node.
const CALLERS: usize = 2;

/// Which data-plane node may refuse calls, and since when.
type Restarting = Arc<Mutex<[Option<Instant>; 2]>>;

/// What the load has seen.
#[derive(Default)]
struct Seen {
    written: Vec<String>,
    calls: u64,
    elsewhere: u64,
    failures: Vec<String>,
}

struct Load {
    stop: Arc<AtomicBool>,
    restarting: Restarting,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(fleet: &Fleet, token: &str) -> Self {
        let (stop, restarting, seen) =
            (Arc::<AtomicBool>::default(), Restarting::default(), Arc::<Mutex<Seen>>::default());
        let urls = ["dp-1", "dp-2"].map(|n| fleet.servers[n].mcp());
        let mut tasks = Vec::new();
        for at in (0..2).flat_map(|at| [at; CALLERS]) {
            let (stop, restarting, seen) = (stop.clone(), restarting.clone(), seen.clone());
            tasks.push(tokio::spawn(call_until(at, urls.clone(), token.to_owned(), stop, restarting, seen)));
        }
        let admins = ["cp-1", "cp-2", "cp-3"].map(|n| fleet.servers[n].admin.to_string());
        tasks.push(tokio::spawn(write_until(admins, fleet.admin_token.clone(), stop.clone(), seen.clone())));
        Self { stop, restarting, seen, tasks }
    }

    async fn stop(self) -> Arc<Mutex<Seen>> {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.seen
    }
}

/// Calls at node `at`; at the other one while that is being restarted.
async fn call_until(
    at: usize,
    urls: [String; 2],
    token: String,
    stop: Arc<AtomicBool>,
    restarting: Restarting,
    seen: Arc<Mutex<Seen>>,
) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        let mut outcome = call(&client, &urls[at], &token).await;
        let may_refuse = restarting.lock().unwrap()[at].is_some_and(|since| began + ON_ITS_WAY > since);
        let elsewhere = outcome.is_err() && may_refuse;
        if elsewhere {
            outcome = call(&client, &urls[1 - at], &token).await;
        }
        let mut seen = seen.lock().unwrap();
        seen.elsewhere += u64::from(elsewhere);
        match outcome {
            Ok(()) => seen.calls += 1,
            Err(why) => seen.failures.push(format!("at {}, elsewhere: {elsewhere}: {why}", urls[at])),
        }
    }
}

async fn call(client: &reqwest::Client, url: &str, token: &str) -> Result<(), String> {
    let body = modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": CALL_MS } }));
    let sent = client
        .post(url)
        .bearer_auth(token)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "up.slow")
        .json(&body)
        .timeout(LIMIT)
        .send();
    let response = sent.await.map_err(|e| format!("{e:?}"))?;
    let text = response.text().await.map_err(|e| format!("{e:?}"))?;
    let message = text.lines().rev().find_map(|l| l.strip_prefix("data:")).unwrap_or(&text);
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    let answered = message["result"]["content"].is_array() && message["result"]["isError"] != true;
    if answered { Ok(()) } else { Err(text) }
}

/// Writes tenants one after the other, at the next node after each failure. What failed may have
/// been done: only what was acknowledged counts.
async fn write_until(admins: [String; 3], token: String, stop: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    let mut at = 0;
    for n in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("w-{n}");
        let text = format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: {name} }}\n");
        let documents = vec![Document { path: "w.yaml".to_owned(), text }];
        let write = async {
            let mut admin = connect_admin(&admins[at % 3], &token).await.map_err(drop)?;
            let request = ApplyRequest { documents, dry_run: false, message: String::new() };
            admin.apply(request).await.map_err(drop)
        };
        match tokio::time::timeout(LIMIT, write).await {
            Ok(Ok(_)) => seen.lock().unwrap().written.push(name),
            _ => at += 1,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every node has caught up, as `cluster status` says.
fn no_lag(fleet: &Fleet) {
    fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
    fleet.until("nobody lags", |f| {
        let status = f.status("cp-1").unwrap_or_default();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let far = members.iter().any(|m| m["lag"].as_u64().is_none_or(|lag| lag > 20));
        !far && members.iter().all(|m| m["role"] != "unreachable")
    });
}

/// Restarts everything, one process after the other, each with this environment.
async fn roll(fleet: &mut Fleet, load: &Load, token: &str, environment: &[(&str, &str)]) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for name in ["cp-1", "cp-2", "cp-3", "dp-1", "dp-2"] {
        let data = ["dp-1", "dp-2"].iter().position(|n| *n == name);
        if let Some(at) = data {
            load.restarting.lock().unwrap()[at] = Some(Instant::now());
        }
        let server = fleet.get(name);
        let (took, status) = tokio::task::block_in_place(|| server.terminate());
        assert!(status.success() && took < STOP_LIMIT, "{name}: {status} after {took:?}");
        server.start(environment);
        if let Some(at) = data {
            let url = server.mcp();
            let began = Instant::now();
            // It listens before it serves.
            while let Err(why) = call(&client, &url, token).await {
                assert!(began.elapsed() < SOON, "{name} does not come back: {why}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            load.restarting.lock().unwrap()[at] = None;
        }
        tokio::task::block_in_place(|| no_lag(fleet));
    }
}

/// Three voters, two data-plane nodes, an upstream, and an agent's token that both nodes take.
fn scene(cluster: &str, up: &Process) -> (Fleet, String) {
    let mut fleet = three(cluster, "");
    apply(&fleet, "cp-1", "up.yaml", &upstream_yaml(&up.url));
    fleet.join("cp-1", "dp-2", "data-plane");
    let token = fleet.ok("cp-2", &["token", "create", "--principal", "bot"]).trim().to_owned();
    let body = modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": 1 } }));
    for name in ["dp-1", "dp-2"] {
        let http = fleet.servers[name].http;
        fleet.until("it listens", |_| std::net::TcpStream::connect(http).is_ok());
        let url = fleet.servers[name].mcp();
        fleet.until("calls are taken", |_| {
            tokio::task::block_in_place(|| {
                std::thread::scope(|s| s.spawn(|| crate::harness::post(&url, &token, &body)).join())
            })
            .is_ok_and(|answer| answer.1["result"]["content"].is_array())
        });
    }
    (fleet, token)
}

async fn judge(fleet: &Fleet, load: Load) {
    // A quick machine restarts everything within few calls.
    let (began, enough) = (Instant::now(), |seen: &Seen| seen.calls > 50 && seen.written.len() > 20);
    while !enough(&load.seen.lock().unwrap()) && began.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen = load.stop().await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    println!("{} calls ({} elsewhere), {} writes acknowledged", seen.calls, seen.elsewhere, seen.written.len());
    assert!(seen.failures.is_empty(), "calls failed: {:#?}", &seen.failures[..seen.failures.len().min(5)]);
    assert!(enough(&seen), "too little was done");
    let mut admin = connect_admin(&fleet.servers["cp-2"].admin.to_string(), &fleet.admin_token).await.unwrap();
    let request = GetRequest { kind: "Tenant".to_owned(), name: String::new(), tenant: String::new() };
    let tenants = admin.get(request).await.unwrap().into_inner().resources;
    let names: std::collections::BTreeSet<String> = tenants
        .iter()
        .map(|t| serde_json::from_str::<Value>(&t.json).unwrap()["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<&String> = seen.written.iter().filter(|w| !names.contains(*w)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_loses_no_write_and_fails_no_call() {
    let up = Process::everything("modern");
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("rolling", &up));
    let load = Load::start(&fleet, &token);
    roll(&mut fleet, &load, &token, &[]).await;
    judge(&fleet, load).await;
}

/// There is one build: `PROVOST_TEST_WIRE_VERSION`, which only builds with debug assertions honour,
/// makes a process speak as another version.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_upgrade_by_one_version_works_and_by_two_is_refused() {
    let up = Process::everything("modern");
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("upgrade", &up));
    let (own, coming, far) = (WIRE_VERSION, (WIRE_VERSION + 1).to_string(), (WIRE_VERSION + 2).to_string());
    let speaking = |version| [("PROVOST_TEST_WIRE_VERSION", version)];
    let (next, after) = (speaking(coming.as_str()), speaking(far.as_str()));
    tokio::task::block_in_place(|| {
        fleet.until("all have said what they speak", |f| f.status("cp-1").is_some_and(|s| s["wire_version"] == own));
        // Two ahead of the others: it does not even begin.
        let server = fleet.get("cp-3");
        server.terminate();
        server.start(&after);
        assert!(!server.ended(SOON).success());
        let said = server.log();
        assert!(
            said.contains("PV-CLUSTER-VERSION")
                && said.contains(&format!("version {far}"))
                && said.contains(&format!("version {own}")),
            "{said}"
        );
        // One ahead: it takes part, and nothing new is stored yet.
        server.start(&next);
        fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
        fleet.until("cp-3 has said what it speaks", |f| {
            f.status("cp-1").is_some_and(|s| {
                s["members"].as_array().unwrap().iter().any(|m| m["name"] == "cp-3" && m["wire_version"] == own + 1)
            })
        });
        assert_eq!(fleet.status("cp-1").unwrap()["wire_version"], own);
    });
    let load = Load::start(&fleet, &token);
    roll(&mut fleet, &load, &token, &next).await;
    judge(&fleet, load).await;
    tokio::task::block_in_place(|| {
        fleet.until("all speak it", |f| f.status("cp-2").is_some_and(|s| s["wire_version"] == own + 1));
        // There is no way back.
        let server = fleet.get("cp-2");
        server.terminate();
        server.start(&[]);
        assert!(!server.ended(SOON).success());
        let said = server.log();
        let why = format!("the node speaks version {own}, and the cluster stores records of version {coming}");
        assert!(said.contains(&why), "{said}");
        server.start(&next);
        fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
    });
}
