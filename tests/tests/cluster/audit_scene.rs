//! A cluster whose audit log is on nodes of its own, an agent of its data-plane nodes, and how its logs
//! are compared.

use std::{
    collections::BTreeMap,
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

use crate::{
    harness::modern,
    processes::{Fleet, SOON, provost},
    restore::{RESOURCES, apply},
};

pub const KEEPERS: [&str; 3] = ["au-1", "au-2", "au-3"];
pub const DATA: [&str; 2] = ["dp-1", "dp-2"];

/// A tool that notes each of its calls in a file, before it answers.
const COUNTING: &str = r#"
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m:
        continue
    answer = {"jsonrpc": "2.0", "id": m["id"]}
    method = m.get("method")
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                            "serverInfo": {"name": "count", "version": "1"}}
    elif method == "ping":
        answer["result"] = {}
    elif method == "tools/list":
        answer["result"] = {"tools": [{"name": "run", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        with open(sys.argv[1], "a") as runs:
            runs.write(m["params"]["arguments"]["as"] + "\n")
        answer["result"] = {"content": [{"type": "text", "text": "done"}]}
    else:
        answer["error"] = {"code": -32601, "message": "no such method"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
"#;

/// One control-plane node, three that keep the audit log and two that serve calls; an agent's token.
pub fn scene(cluster: &str) -> (Fleet, String) {
    scene_with(cluster, &[], "")
}

/// The same with variables in the environment of the audit-log nodes, and lines of `[timings]` of all.
pub fn scene_with(cluster: &str, environment: &[(&str, &str)], timings: &str) -> (Fleet, String) {
    let mut fleet = Fleet::new(cluster);
    fleet.more.push_str(timings);
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
    // Changes are refused where no quorum records them, and the group is being made.
    fleet.until_audit_voters(KEEPERS[0], KEEPERS.len());
    apply(&fleet, "cp-1", "resources.yaml", RESOURCES);
    let (program, runs) = (fleet.path("count.py"), fleet.path("runs"));
    std::fs::write(&program, COUNTING).unwrap();
    let counting = format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: count, tenant: acme }}\n\
         spec: {{ source: {{ mcp-stdio: {{ command: python3, args: ['{}', '{}'], isolation: {{ enabled: false }} }} }} }}\n",
        program.display(),
        runs.display()
    );
    apply(&fleet, "cp-1", "count.yaml", &counting);
    let token = fleet.ok_when_recorded("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
    (fleet, token)
}

/// An agent of both data-plane nodes.
#[derive(Clone)]
pub struct Agent {
    client: reqwest::Client,
    urls: [String; 2],
    token: String,
    next: Arc<AtomicU64>,
}

/// How one call ended.
pub struct Ended {
    pub id: u64,
    /// What was wrong, if it was not answered.
    pub refusal: Option<String>,
    pub took: Duration,
}

impl Agent {
    pub fn new(fleet: &Fleet, token: String) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, urls: DATA.map(|name| fleet.servers[name].mcp()), token, next: Arc::default() }
    }

    /// Calls at one of the nodes in turn, each under a number of its own.
    pub async fn call(&self, tool: &str, arguments: Value) -> Ended {
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

    pub async fn echo(&self) -> Ended {
        self.call("echo.echo", json!({ "text": "x" })).await
    }

    /// Calls until so many calls were answered. Where the audit log has no quorum for a moment (a leader that dies; a
    /// machine so busy that a majority is late) a call is refused, and says so; nothing else may go wrong.
    pub async fn answered(&self, calls: usize) {
        for _ in 0..calls {
            let began = Instant::now();
            while let Some(why) = self.echo().await.refusal {
                assert!(why.contains("PV-AUDIT-UNAVAILABLE"), "refused for another reason: {why}");
                assert!(began.elapsed() < SOON, "no calls are taken: {why}");
            }
        }
    }

    pub async fn ready(&self) {
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
pub async fn leader(fleet: &Fleet) -> &'static str {
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

pub fn audit_dir(fleet: &Fleet, name: &str) -> PathBuf {
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
pub fn verify_equal(fleet: &Fleet, names: &[&str]) {
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

/// What a replica holds of the tenant's log: `index` and `record` of each.
pub fn records(fleet: &Fleet, at: &str) -> Vec<Value> {
    let mut query = provost();
    query.args(["audit", "query", "--json", "--limit", "10000000", "--tenant", "acme", "--dir"]);
    let output = query.arg(audit_dir(fleet, at)).output().unwrap();
    assert!(output.status.success(), "{}", crate::harness::text(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Phases of each call, by the number of its request.
pub fn recorded(fleet: &Fleet, at: &str) -> BTreeMap<u64, Vec<String>> {
    let mut calls: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for found in records(fleet, at) {
        let record = &found["record"];
        let id = record["jsonrpc.request.id"].as_str().and_then(|id| id.parse().ok());
        if let (Some(id), Some(phase)) = (id, record["phase"].as_str()) {
            calls.entry(id).or_default().push(phase.to_owned());
        }
    }
    calls
}
