//! The audit log's nodes die, alone and together, while agents call through two data-plane nodes that
//! keep no log themselves.
//!
//! `PROVOST_CLUSTER_SECONDS` makes the leader-kill test longer than its 15 seconds, `PROVOST_AUDIT_RATE`
//! (calls a second, default 60) faster.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use provost_wire::{
    audit::{GroupRequest, GroupResponse, audit_log_client::AuditLogClient},
    tls::{Expect, Identity, Role, channel},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    harness::modern,
    processes::{Fleet, SOON, provost, wipe},
    restore::{RESOURCES, apply},
};

const KEEPERS: [&str; 3] = ["au-1", "au-2", "au-3"];
const DATA: [&str; 2] = ["dp-1", "dp-2"];
/// Between one kill and the next.
const KILL_PERIOD: Duration = Duration::from_secs(5);
/// A killed node is started again after so long.
const DOWN: Duration = Duration::from_millis(1_500);
/// A record is waited for five seconds at most; a call has two, of which one can meet the outage.
const CALL_LIMIT: Duration = Duration::from_secs(8);
/// Calls in flight; more means that everything stands still.
const MAX_IN_FLIGHT: usize = 4_000;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// One control-plane node, three that keep the audit log and two that serve calls; an agent's token.
fn scene(cluster: &str) -> (Fleet, String) {
    scene_with(cluster, &[])
}

/// The same with variables in the environment of the audit-log nodes.
fn scene_with(cluster: &str, environment: &[(&str, &str)]) -> (Fleet, String) {
    let mut fleet = Fleet::new(cluster);
    fleet.add("cp-1", "control-plane");
    KEEPERS.iter().for_each(|name| fleet.add(name, "audit-log"));
    DATA.iter().for_each(|name| fleet.add(name, "data-plane"));
    fleet.init("cp-1");
    for name in ["cp-1"].iter().chain(&DATA) {
        fleet.start(name);
    }
    for name in KEEPERS {
        fleet.get(name).start(environment);
    }
    fleet.until("all are members", |f| KEEPERS.iter().chain(&DATA).all(|name| f.knows("cp-1", name)));
    apply(&fleet, "cp-1", "resources.yaml", RESOURCES);
    let database = fleet.path("runs.db");
    std::fs::File::create(&database).unwrap();
    let sql = format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: sql, tenant: acme }}\n\
         spec: {{ source: {{ builtin: {{ name: sql, config: {{ url: 'sqlite:{}' }} }} }} }}\n",
        database.display()
    );
    apply(&fleet, "cp-1", "sql.yaml", &sql);
    let token = fleet.ok("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
    (fleet, token)
}

/// An agent of both data-plane nodes.
#[derive(Clone)]
struct Agent {
    client: reqwest::Client,
    urls: [String; 2],
    token: String,
    next: Arc<AtomicU64>,
}

/// How one call ended.
struct Ended {
    id: u64,
    /// What was wrong, if it was not answered.
    refusal: Option<String>,
    took: Duration,
}

impl Agent {
    fn new(fleet: &Fleet, token: String) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, urls: DATA.map(|name| fleet.servers[name].mcp()), token, next: Arc::default() }
    }

    /// Calls at one of the nodes in turn, each under a number of its own.
    async fn call(&self, tool: &str, arguments: Value) -> Ended {
        let id = self.next.fetch_add(1, Ordering::SeqCst) + 1_000;
        let mut body = modern("tools/call", json!({ "name": tool, "arguments": arguments }));
        body["id"] = json!(id);
        let began = Instant::now();
        let sent = self
            .client
            .post(&self.urls[usize::try_from(id).unwrap() % 2])
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .json(&body)
            .timeout(SOON)
            .send();
        let text = match sent.await {
            Ok(answer) => answer.text().await.unwrap_or_else(|e| e.to_string()),
            Err(e) => format!("{e:?}"),
        };
        let message: Value = serde_json::from_str(&text).unwrap_or_default();
        let answered = message["result"]["content"].is_array() && message["result"]["isError"] != true;
        Ended { id, refusal: (!answered).then_some(text), took: began.elapsed() }
    }

    async fn echo(&self) -> Ended {
        self.call("echo.echo", json!({ "text": "x" })).await
    }

    async fn ready(&self) {
        let began = Instant::now();
        for _ in 0..self.urls.len() {
            loop {
                // The number of the call chooses the node.
                let ended = self.echo().await;
                let other = self.echo().await;
                if ended.refusal.is_none() && other.refusal.is_none() {
                    break;
                }
                assert!(began.elapsed() < SOON, "no calls are taken: {:?} {:?}", ended.refusal, other.refusal);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// How the group stands, by the word of one of its nodes; asked as the first data-plane node.
async fn group(fleet: &Fleet, at: &str) -> Option<GroupResponse> {
    let identity = Arc::new(Identity::load(&fleet.servers["dp-1"].data().join("identity")).ok()?);
    let channel = channel(identity, &fleet.servers[at].peer.to_string(), Expect::role(Role::AuditLog)).ok()?;
    let asked = tokio::time::timeout(Duration::from_secs(1), AuditLogClient::new(channel).group(GroupRequest {})).await;
    Some(asked.ok()?.ok()?.into_inner())
}

/// Waits until all three vote; the leader's name.
async fn leader(fleet: &Fleet) -> &'static str {
    let began = Instant::now();
    loop {
        for name in KEEPERS {
            if let Some(group) = group(fleet, name).await
                && group.leader_id == group.node_id
                && group.voters.len() == 3
            {
                return name;
            }
        }
        assert!(began.elapsed() < SOON, "no audit-log node leads three voters");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn audit_dir(fleet: &Fleet, name: &str) -> PathBuf {
    fleet.servers[name].data().join("audit")
}

/// Every file of records below a folder, by its path there.
fn record_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "raw" || e == "seg" || e == "leaf") {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// Waits until the replicas hold the same files, and verifies each.
fn verify_equal(fleet: &Fleet, names: &[&str]) {
    let began = Instant::now();
    loop {
        let files: Vec<_> = names.iter().map(|name| record_files(&audit_dir(fleet, name))).collect();
        if !files[0].is_empty() && files.iter().all(|f| *f == files[0]) {
            break;
        }
        let sizes: Vec<BTreeMap<_, _>> =
            files.into_iter().map(|f| f.into_iter().map(|(p, b)| (p, b.len())).collect()).collect();
        assert!(began.elapsed() < SOON, "the replicas differ: {sizes:#?}");
        std::thread::sleep(Duration::from_millis(300));
    }
    for name in names {
        let output = provost().args(["audit", "verify"]).arg(audit_dir(fleet, name)).output().unwrap();
        // 2: consistent; nobody else has its checkpoints.
        assert_eq!(output.status.code(), Some(2), "{name}: {}", crate::harness::text(&output));
    }
}

/// Phases of each call of `echo.echo` and `sql.query`, by the number of its request.
fn recorded(fleet: &Fleet, at: &str) -> BTreeMap<u64, Vec<String>> {
    let mut query = provost();
    query.args(["audit", "query", "--json", "--limit", "10000000", "--tenant", "acme", "--dir"]);
    let output = query.arg(audit_dir(fleet, at)).output().unwrap();
    assert!(output.status.success(), "{}", crate::harness::text(&output));
    let mut calls: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let record = serde_json::from_str::<Value>(line).unwrap()["record"].take();
        let id = record["jsonrpc.request.id"].as_str().and_then(|id| id.parse().ok());
        if let (Some(id), Some(phase)) = (id, record["phase"].as_str()) {
            calls.entry(id).or_default().push(phase.to_owned());
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killing_audit_leaders_loses_and_doubles_no_record() {
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("audit-kill"));
    let agent = Agent::new(&fleet, token);
    agent.ready().await;
    leader(&fleet).await;
    let (seconds, rate) = (variable("PROVOST_CLUSTER_SECONDS", 15), variable("PROVOST_AUDIT_RATE", 60));

    let calling = {
        let agent = agent.clone();
        tokio::spawn(async move {
            let (mut calls, mut ended) = (JoinSet::new(), Vec::new());
            let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(seconds) {
                tick.tick().await;
                while let Some(done) = calls.try_join_next() {
                    ended.push(done.unwrap());
                }
                assert!(calls.len() < MAX_IN_FLIGHT, "{MAX_IN_FLIGHT} calls wait for their answer");
                let agent = agent.clone();
                calls.spawn(async move { agent.echo().await });
            }
            ended.extend(calls.join_all().await);
            ended
        })
    };
    let mut kills = 0;
    let began = Instant::now();
    while began.elapsed() + KILL_PERIOD < Duration::from_secs(seconds) {
        tokio::time::sleep(KILL_PERIOD - DOWN).await;
        let victim = leader(&fleet).await;
        fleet.get(victim).kill();
        kills += 1;
        tokio::time::sleep(DOWN).await;
        fleet.start(victim);
    }
    let ended: Vec<Ended> = calling.await.unwrap();
    leader(&fleet).await;

    let refused: Vec<&Ended> = ended.iter().filter(|e| e.refusal.is_some()).collect();
    let slowest = ended.iter().map(|e| e.took).max().unwrap_or_default();
    println!(
        "audit leader kills: {kills} in {seconds} s; {} calls, {} refused, slowest {slowest:?}",
        ended.len(),
        refused.len()
    );
    let strange: Vec<&str> = refused.iter().filter_map(|e| e.refusal.as_deref()).collect();
    let strange: Vec<&&str> = strange.iter().filter(|r| !r.contains("PV-AUDIT-UNAVAILABLE")).collect();
    assert!(strange.is_empty(), "refused for another reason: {:#?}", &strange[..strange.len().min(3)]);
    assert!(kills > 0 && refused.len() * 2 < ended.len(), "{} of {} calls were refused", refused.len(), ended.len());
    assert!(slowest < CALL_LIMIT, "a call waited for {slowest:?}");

    // In order, so that what is on its way is written.
    tokio::task::block_in_place(|| {
        for name in DATA {
            assert!(fleet.get(name).terminate().1.success(), "{name} did not end well");
        }
        verify_equal(&fleet, &KEEPERS);
    });
    let calls = recorded(&fleet, "au-1");
    for e in &ended {
        let phases = calls.get(&e.id).cloned().unwrap_or_default();
        match &e.refusal {
            None => assert_eq!(phases, ["intent", "outcome"], "call {} was answered", e.id),
            // It may have been recorded all the same; then it has an end.
            Some(_) => assert!(phases.is_empty() || phases == ["intent", "outcome"], "call {}: {phases:?}", e.id),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_minority_of_the_audit_log_refuses_and_nothing_runs_without_an_intent() {
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("audit-minority"));
    let agent = Agent::new(&fleet, token);
    agent.ready().await;
    leader(&fleet).await;
    let run = |sql: &str| {
        let (agent, sql) = (agent.clone(), sql.to_owned());
        async move { agent.call("sql.query", json!({ "sql": sql })).await }
    };
    let made = run("CREATE TABLE runs (n INTEGER)").await;
    assert_eq!(made.refusal, None);
    let before = run("INSERT INTO runs VALUES (1)").await;
    assert_eq!(before.refusal, None);

    let (gone, left) = (["au-1", "au-2"], "au-3");
    gone.iter().for_each(|name| fleet.get(name).kill());
    let mut tried = BTreeSet::new();
    for _ in 0..4 {
        let refused = run("INSERT INTO runs VALUES (2)").await;
        let why = refused.refusal.expect("a call ran without a record");
        assert!(why.contains("PV-AUDIT-UNAVAILABLE"), "{why}");
        println!("audit minority: refused after {:?}", refused.took);
        assert!(refused.took < CALL_LIMIT, "refused only after {:?}", refused.took);
        tried.insert(refused.id);
    }
    // It heals by itself, and what was refused did not run.
    fleet.start(gone[0]);
    let began = Instant::now();
    loop {
        let again = run("INSERT INTO runs VALUES (3)").await;
        match again.refusal {
            None => break,
            Some(why) => assert!(began.elapsed() < SOON, "{left} and {} do not heal: {why}", gone[0]),
        }
    }
    fleet.start(gone[1]);
    leader(&fleet).await;
    assert_eq!(rows(&agent, "SELECT count(*) AS n FROM runs WHERE n = 2").await, 0, "a refused call ran");
    tokio::task::block_in_place(|| verify_equal(&fleet, &KEEPERS));
    for (id, phases) in recorded(&fleet, left).iter().filter(|(id, _)| tried.contains(id)) {
        assert_eq!(*phases, ["intent", "outcome"], "call {id} has no end");
    }
}

/// The number `n` of the first row.
async fn rows(agent: &Agent, sql: &str) -> u64 {
    let mut body = modern("tools/call", json!({ "name": "sql.query", "arguments": { "sql": sql } }));
    body["id"] = json!(1);
    let sent = agent.client.post(&agent.urls[0]).bearer_auth(&agent.token);
    let sent = sent.header("accept", "application/json, text/event-stream");
    let sent = sent.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
    let answer = sent.header("mcp-name", "sql.query").json(&body).timeout(SOON).send().await.unwrap();
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let rows = answer["result"]["structuredContent"]["rows"].clone();
    rows[0][0].as_u64().unwrap_or_else(|| panic!("no count: {answer}"))
}

/// The Raft log is short: who comes late takes a snapshot, and the records from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_is_far_behind_takes_the_records_from_another() {
    let keep = [("PROVOST_TEST_AUDIT_KEEP", "20")];
    let (mut fleet, token) = tokio::task::block_in_place(|| scene_with("audit-behind", &keep));
    let agent = Agent::new(&fleet, token);
    agent.ready().await;
    let leads = leader(&fleet).await;
    let late = KEEPERS.into_iter().rfind(|name| *name != leads).unwrap();
    fleet.get(late).kill();
    for _ in 0..150 {
        assert_eq!(agent.echo().await.refusal, None);
    }
    tokio::task::block_in_place(|| {
        fleet.join("cp-1", "au-4", "audit-log");
        fleet.get(late).start(&keep);
        fleet.until("both have taken records", |f| {
            [late, "au-4"].iter().all(|name| f.servers[*name].log().contains("takes records from another replica"))
        });
    });
    for _ in 0..10 {
        assert_eq!(agent.echo().await.refusal, None);
    }
    tokio::task::block_in_place(|| verify_equal(&fleet, &["au-1", "au-2", "au-3", "au-4"]));
}

#[test]
fn an_audit_voter_that_lost_its_log_refuses_to_start() {
    let (mut fleet, _) = scene("audit-wiped");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let leads = runtime.block_on(leader(&fleet));
    let victim = KEEPERS.into_iter().find(|name| *name != leads).unwrap();
    fleet.get(victim).kill();
    wipe(&fleet.get(victim).data().join("audit-raft"), "raft");
    fleet.start(victim);
    assert!(!fleet.get(victim).ended(SOON).success());
    assert!(fleet.get(victim).log().contains("PV-RAFT-WIPED"), "{}", fleet.get(victim).log());
    // The others are a majority, and the node can be replaced.
    fleet.ok("cp-1", &["cluster", "remove", victim]);
    fleet.join("cp-1", "au-4", "audit-log");
    runtime.block_on(leader(&fleet));
}
