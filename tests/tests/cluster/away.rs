//! A voter and a data-plane node are killed, miss many changes, and come back: the voter takes a snapshot and not
//! the log, the data-plane node a whole state and not what changed, and both are where the others are.
//!
//! In production it takes more than that until it is so: a voter reads up to 30,000 entries from the log (`Retention` of
//! `provost-control-raft`), a data-plane node up to 1,024 deltas, each of which may hold the changes of some
//! milliseconds. Both bounds are small here (`PROVOST_TEST_CONTROL_KEEP`, `PROVOST_TEST_PUSH_RING`), in builds with debug
//! assertions and in no others. That one whole state leads over 10,000 revisions with the bound as it is, is
//! tested in the process, in `control-plane/api/src/push/tests/laws.rs`.
//!
//! How many changes are missed is in `PROVOST_AWAY_REVISIONS`. 10,000 of them may take longer than nextest lets a test
//! run; cargo lets it end:
//!
//! `PROVOST_AWAY_REVISIONS=10000 cargo test --locked -p provost-tests --test cluster away -- --nocapture`

use std::{
    fs,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use provost_wire::{
    AdminConnection,
    admin::{ApplyRequest, Document, GetRequest, GetResponse},
    connect_admin,
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    harness::{modern, post},
    processes::{Fleet, SOON, scrape},
    restore::RESOURCES,
};

const VOTERS: [&str; 3] = ["cp-1", "cp-2", "cp-3"];
/// Of the control plane: entries between two snapshots and behind one, and deltas.
const SMALL: [(&str, &str); 2] = [("PROVOST_TEST_CONTROL_KEEP", "200"), ("PROVOST_TEST_PUSH_RING", "20")];
/// Changes that are missed unless `PROVOST_AWAY_REVISIONS` says otherwise.
const DEFAULT_REVISIONS: u64 = 1_500;
/// Fewer might be read from the log, small as it is.
const LEAST_REVISIONS: u64 = 1_000;
const WRITERS: usize = 16;
/// Tenants that each writer changes in turn.
const TENANTS: u64 = 8;
/// For the changes, each; it is seldom a tenth of that.
const CHANGE_LIMIT: Duration = Duration::from_millis(200);
/// From the start of a process that missed everything until it is where the others are, on a busy machine.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Between two looks, or two tries.
const PAUSE: Duration = Duration::from_millis(50);

fn revisions() -> u64 {
    let wanted = std::env::var("PROVOST_AWAY_REVISIONS").ok().map(|text| text.parse::<u64>().unwrap());
    let count = wanted.unwrap_or(DEFAULT_REVISIONS);
    assert!(count >= LEAST_REVISIONS, "PROVOST_AWAY_REVISIONS is below {LEAST_REVISIONS}");
    count
}

#[test]
fn a_voter_and_a_data_plane_node_that_missed_a_flood_of_changes_are_soon_where_the_others_are() {
    let count = revisions();
    let runtime = Runtime::new().unwrap();
    let (mut fleet, token) = scene();
    let leader = fleet.agreed(&VOTERS);
    let away = VOTERS.into_iter().find(|name| *name != leader).unwrap();
    let stayed: Vec<&str> = VOTERS.into_iter().filter(|name| *name != away).collect();
    let asked = stayed[0];
    fleet.until("the data-plane nodes are current", |f| runs(f, asked, "dp-1", 1) && runs(f, asked, "dp-2", 1));

    let before = revision(&fleet, asked);
    assert!(before > 0, "{asked} does not say its revision");
    for name in [away, "dp-1"] {
        fleet.get(name).kill();
    }
    let said_by_voter = fleet.servers[away].log().len();
    let said_by_node = fleet.servers["dp-1"].log().len();
    let writing = flood(&runtime, &fleet, &stayed, count);
    let refused = call(&fleet, "dp-2", &token).expect_err("the call is allowed before the last change");
    assert!(refused.contains("PV-TOOL-UNKNOWN") || refused.contains("PV-POLICY-DENIED"), "{refused}");
    apply(&fleet, asked, "grant.yaml", RESOURCES);
    let last = revision(&fleet, asked);
    assert!(last >= before + count, "{count} changes were acknowledged, and revision {before} became {last}");
    fleet.until("those who stayed have the last change", |f| stayed.iter().all(|name| revision(f, name) >= last));

    // Before the voter: that one keeps no deltas after its start, so that it could give nothing but a whole state.
    fleet.start("dp-1");
    let node_took = within(&fleet, "dp-1 runs the newest revision", |f| runs(f, asked, "dp-1", last));
    let wholes = numbers(&fleet.servers["dp-1"].log()[said_by_node..], "took the whole state at revision ");
    assert!(wholes.iter().any(|at| *at >= last), "whole states {wholes:?}, and none of {last}");
    fleet.until("dp-1 decides by the last change", |f| listens(f, "dp-1") && call(f, "dp-1", &token).is_ok());

    fleet.until("no log has what the voter lacks", |f| stayed.iter().all(|name| purged(f, name) > before));
    fleet.get(away).start(&SMALL);
    let voter_took = within(&fleet, "the voter has everything", |f| {
        revision(f, away) >= last && stayed.iter().any(|name| is_level(f, name, away, last))
    });
    let snapshots = numbers(&fleet.servers[away].log()[said_by_voter..], "a snapshot replaced the state up to entry ");
    let middle = before + count / 2;
    assert!(snapshots.iter().any(|upto| *upto > middle), "snapshots {snapshots:?}, and none of more than {middle}");

    fleet.agreed(&VOTERS);
    fleet.until("the voters have one state", |f| {
        let states = runtime.block_on(states(f)).unwrap_or_default();
        states.len() == VOTERS.len() && states[0].revision >= last && states.iter().all(|state| *state == states[0])
    });
    fleet.until("the data-plane nodes have one state", |f| {
        let (came_back, stayed) = (kept(f, "dp-1"), kept(f, "dp-2"));
        came_back.as_ref().is_some_and(|(revision, _)| *revision >= last) && came_back == stayed
    });
    println!(
        "away: {} revisions in {writing:?}; then the data-plane node needed {node_took:?} and the voter {voter_took:?}",
        last - before
    );
}

/// Three voters, an audit log, and two data-plane nodes: one stays and has every delta. The token's principal has no
/// role yet.
fn scene() -> (Fleet, String) {
    let mut fleet = Fleet::new("away");
    VOTERS.iter().for_each(|name| fleet.add(name, "control-plane"));
    fleet.add("au-1", "audit-log");
    fleet.add("dp-1", "data-plane");
    fleet.add("dp-2", "data-plane");
    fleet.init("cp-1");
    VOTERS.iter().for_each(|name| fleet.get(name).start(&SMALL));
    ["au-1", "dp-1", "dp-2"].iter().for_each(|name| fleet.start(name));
    fleet.agreed(&VOTERS);
    fleet.until("all are members", |f| ["au-1", "dp-1", "dp-2"].iter().all(|name| f.knows("cp-1", name)));
    let documents = RESOURCES.split("---\n").filter(|document| !document.contains("kind: RoleBinding"));
    apply(&fleet, "cp-1", "ungranted.yaml", &documents.collect::<Vec<_>>().join("---\n"));
    let token = fleet.ok_when_recorded("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
    fleet.until("dp-2 listens", |f| listens(f, "dp-2"));
    (fleet, token)
}

fn apply(fleet: &Fleet, node: &str, name: &str, documents: &str) {
    let file = fleet.path(name);
    fs::write(&file, documents).unwrap();
    fleet.ok_when_recorded(node, &["apply", "-f", file.to_str().unwrap(), "-m", name]);
}

fn listens(fleet: &Fleet, node: &str) -> bool {
    TcpStream::connect(fleet.servers[node].http).is_ok()
}

/// A call that only the role allows.
fn call(fleet: &Fleet, node: &str, token: &str) -> Result<(), String> {
    let body = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
    let (_, answer) = post(&fleet.servers[node].mcp(), token, &body);
    let is_result = answer["result"]["content"].is_array() && answer["result"]["isError"] != true;
    if is_result { Ok(()) } else { Err(answer.to_string()) }
}

/// Has so many changes acknowledged, each a revision of its own, at the nodes in turn; how long it took.
fn flood(runtime: &Runtime, fleet: &Fleet, nodes: &[&str], count: u64) -> Duration {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let began = Instant::now();
    let limit = SOON + CHANGE_LIMIT * u32::try_from(count).unwrap();
    let made = Arc::new(AtomicU64::new(0));
    let all = async {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let address = fleet.servers[nodes[writer % nodes.len()]].admin.to_string();
            let admin = connect_admin(&address, &fleet.admin_token).await.unwrap();
            writers.spawn(write(admin, writer, made.clone(), count));
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
    };
    let in_time = runtime.block_on(async { tokio::time::timeout(limit, all).await });
    let made = made.load(Ordering::SeqCst);
    assert!(in_time.is_ok(), "{made} of {count} changes were acknowledged in {limit:?}");
    began.elapsed()
}

/// Changes tenants until all writers together have made `count` changes. What is refused, such as while the audit log
/// is busy, does not count.
async fn write(mut admin: AdminConnection, writer: usize, made: Arc<AtomicU64>, count: u64) {
    for n in 0_u64.. {
        if made.load(Ordering::SeqCst) >= count {
            return;
        }
        let tenant = n % TENANTS;
        let text = format!(
            "apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: w-{writer}-{tenant} }}\n\
             spec: {{ displayName: 'change {n}' }}\n"
        );
        let documents = vec![Document { path: "tenant.yaml".to_owned(), text }];
        match admin.apply(ApplyRequest { documents, dry_run: false, message: String::new() }).await {
            Ok(_) => {
                made.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The revision at a node; 0 while it does not answer.
fn revision(fleet: &Fleet, node: &str) -> u64 {
    fleet.status(node).and_then(|status| status["revision"].as_u64()).unwrap_or_default()
}

/// The last entry that is gone from the control group's log of a node; 0: none is.
fn purged(fleet: &Fleet, node: &str) -> u64 {
    let page = scrape(fleet.servers[node].metrics).unwrap_or_default();
    numbers(&page, "provost_raft_purged_index{group=\"control\"} ").first().copied().unwrap_or_default()
}

/// Whether a data-plane node runs what there is, and that revision at least.
fn runs(fleet: &Fleet, asked: &str, node: &str, least: u64) -> bool {
    let status = fleet.status(asked).unwrap_or_default();
    let reaches = |s: &Value| s["revision"].as_u64().is_some_and(|at| at >= least);
    let subscribers = status["subscribers"].as_array();
    subscribers.is_some_and(|all| all.iter().any(|s| s["node"] == node && s["lag"] == 0 && reaches(s)))
}

/// Whether `asked` knows a voter to lack nothing, and to have that entry at least.
fn is_level(fleet: &Fleet, asked: &str, voter: &str, least: u64) -> bool {
    let status = fleet.status(asked).unwrap_or_default();
    let reaches = |m: &Value| m["applied"].as_u64().is_some_and(|at| at >= least);
    let members = status["members"].as_array();
    members.is_some_and(|all| all.iter().any(|m| m["name"] == voter && m["lag"] == 0 && reaches(m)))
}

/// Waits for something and says how long that took.
fn within(fleet: &Fleet, what: &str, mut holds: impl FnMut(&Fleet) -> bool) -> Duration {
    let began = Instant::now();
    while !holds(fleet) {
        assert!(began.elapsed() < CATCH_UP, "not in {CATCH_UP:?}: {what}");
        std::thread::sleep(PAUSE);
    }
    began.elapsed()
}

/// The numbers that follow a sentence in a log.
fn numbers(log: &str, sentence: &str) -> Vec<u64> {
    let digits = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|text| text.parse().ok());
    log.match_indices(sentence).filter_map(|(at, found)| digits(&log[at + found.len()..])).collect()
}

/// All resources as each voter has them; `None` while one does not answer.
async fn states(fleet: &Fleet) -> Option<Vec<GetResponse>> {
    let mut states = Vec::new();
    for name in VOTERS {
        let address = fleet.servers[name].admin.to_string();
        let mut admin = connect_admin(&address, &fleet.admin_token).await.ok()?;
        states.push(admin.get(GetRequest::default()).await.ok()?.into_inner());
    }
    Some(states)
}

/// Revision and hash of the state that a data-plane node keeps on its disk: a header of 12 bytes, JSON, and a checksum of
/// 32 bytes (`last_good.rs`). The node has compared the hash with that of the control plane.
fn kept(fleet: &Fleet, node: &str) -> Option<(u64, Value)> {
    let bytes = fs::read(fleet.servers[node].data().join("push/last-good")).ok()?;
    let body = bytes.get(12..bytes.len().checked_sub(32)?)?;
    let state: Value = serde_json::from_slice(body).ok()?;
    Some((state["revision"].as_u64()?, state["hash"].clone()))
}
