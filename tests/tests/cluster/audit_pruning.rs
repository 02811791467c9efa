//! Holds and prunes on three replicas that are killed meanwhile.
//!
//! Whole segments are pruned, so the test writes one: 65,536 records of long ago, as the data-plane node whose name
//! and certificate it takes over.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::future::try_join_all;
use provost_audit_store::{AuditClient, AuditEndpoint, AuditWriter, AuditWriterConfig};
use provost_types::{AuditEvent, AuditSink, CallId, CallStatus, Effect, Impact, Name, Phase, Revision, What, Who, Why};
use provost_wire::tls::{Expect, Identity, Role, channel};
use serde_json::Value;

use crate::{
    audit_scene::{KEEPERS, audit_dir, leader, verify_equal},
    harness::text,
    processes::{Fleet, SOON, provost},
};

/// A segment, and enough that a new tail begins behind it.
const RECORDS: u64 = 66_000;
/// Records that wait for their answer together.
const AT_ONCE: u64 = 6_000;
/// Patience of one record, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long ago the records say that they were made; they are kept for a day.
const AGE: Duration = Duration::from_secs(3 * 86_400);
const PRUNE: [&str; 6] = ["audit", "prune", "--tenant", "acme", "--keep", "1d"];

/// Control plane and audit log together on three nodes, and a data-plane node that was once there.
fn scene() -> Fleet {
    let mut fleet = Fleet::new("audit-prune");
    KEEPERS.iter().for_each(|name| fleet.add(name, "control-plane+audit-log"));
    fleet.add("dp-1", "data-plane");
    fleet.init(KEEPERS[0]);
    KEEPERS.iter().chain(&["dp-1"]).for_each(|name| fleet.start(name));
    fleet.agreed(&KEEPERS);
    fleet.until_audit_voters(KEEPERS[0], KEEPERS.len());
    fleet.until("dp-1 is a member", |f| f.knows(KEEPERS[0], "dp-1"));
    fleet.until("dp-1 has its certificate", |f| Identity::load(&f.servers["dp-1"].data().join("identity")).is_ok());
    fleet.get("dp-1").kill();
    fleet
}

/// Writes as dp-1.
fn writer(fleet: &Fleet) -> AuditWriter {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let identity = Arc::new(Identity::load(&fleet.servers["dp-1"].data().join("identity")).unwrap());
    let there = |name: &&str| {
        let address = fleet.servers[*name].peer.to_string();
        let channel = channel(identity.clone(), &address, Expect::role(Role::AuditLog)).unwrap();
        AuditEndpoint::There { name: (*name).to_owned(), channel }
    };
    let client = AuditClient::default();
    client.set(KEEPERS.iter().map(there).collect());
    let config = AuditWriterConfig { cluster: fleet.cluster.clone(), writer: "dp-1".to_owned(), deadline: DEADLINE };
    AuditWriter::start(config, Arc::new(client))
}

fn denied(call: u64) -> AuditEvent {
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - AGE;
    AuditEvent {
        phase: Phase::Denied,
        call_id: CallId(u128::from(call)),
        tenant: Some(Name::new("acme").unwrap()),
        time_ns: u64::try_from(made.as_nanos()).unwrap(),
        who: Who { principal: "bot".to_owned(), ..Who::default() },
        what: What { method: "tools/call".to_owned(), target: Some("sql.query".to_owned()), ..What::default() },
        why: Why::default(),
        decision: Some(Effect::Deny),
        policies: Vec::new(),
        revision: Revision(1),
        status: Some(CallStatus::Denied),
        error: None,
        reason: None,
        guards: Vec::new(),
        body: None,
        impact: Impact::default(),
    }
}

async fn write(writer: &AuditWriter, from: u64, to: u64) {
    for first in (from..to).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let records = (first..to.min(first + AT_ONCE)).map(|call| writer.record(denied(call)));
        try_join_all(records).await.unwrap();
    }
}

fn first_segment(fleet: &Fleet, name: &str, ending: &str) -> PathBuf {
    audit_dir(fleet, name).join(format!("tenants/acme/segments/00000000000000000000.{ending}"))
}

fn is_held(fleet: &Fleet, at: &str) -> Option<bool> {
    let output = fleet.cli(at, &["audit", "hold", "list", "--json"]);
    let holds: Value = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())?;
    Some(holds.as_array()?.iter().any(|hold| hold["hold"] == "case-7"))
}

/// Prunes at a node, and kills another one as soon as what stays of the segment is written there, which is before
/// the segment itself goes.
fn prune_and_kill(fleet: &mut Fleet, at: &str, victim: &str) {
    let mut command = provost();
    command.args(PRUNE).env("PROVOST_ADMIN", fleet.servers[at].admin.to_string());
    command.env("PROVOST_ADMIN_TOKEN", &fleet.admin_token).stdin(Stdio::null());
    let pruning = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stays, began) = (first_segment(fleet, victim, "pruned"), Instant::now());
    while !stays.exists() && began.elapsed() < SOON {
        std::thread::yield_now();
    }
    fleet.get(victim).kill();
    let output = pruning.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output).contains("pruned: records 0 to 65536"), "{}", text(&output));
    assert!(stays.exists(), "{victim} did not begin to prune: {}", text(&output));
    println!(
        "audit pruning: killed with the segment {}",
        if first_segment(fleet, victim, "seg").exists() { "still there" } else { "gone" }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hold_and_a_prune_outlive_nodes_that_are_killed() {
    let mut fleet = tokio::task::block_in_place(scene);
    let dp_1 = writer(&fleet);
    write(&dp_1, 1, RECORDS).await;
    let leads = leader(&fleet).await;
    let others: Vec<&str> = KEEPERS.into_iter().filter(|name| *name != leads).collect();
    tokio::task::block_in_place(|| {
        fleet.until("the segment is full everywhere", |f| {
            KEEPERS.iter().all(|name| first_segment(f, name, "leaf").metadata().is_ok_and(|m| m.len() == 65_536 * 32))
        });
        // Answered and dead: the hold stands wherever somebody asks.
        fleet.ok(leads, &["audit", "hold", "add", "case-7", "--tenant", "acme", "--reason", "case 7"]);
        fleet.get(leads).kill();
        for name in &others {
            fleet.until("the hold stands", |f| is_held(f, name) == Some(true));
            fleet.until("what is held stays", |f| text(&f.cli(name, &PRUNE)).contains("PV-AUDIT-HELD"));
        }
        fleet.start(leads);
        fleet.until("the hold stands where it was made", |f| is_held(f, leads) == Some(true));
        fleet.agreed(&KEEPERS);
    });

    let leads = leader(&fleet).await;
    let victim = KEEPERS.into_iter().find(|name| *name != leads).unwrap();
    tokio::task::block_in_place(|| {
        fleet.ok(leads, &["audit", "hold", "remove", "case-7", "--tenant", "acme", "--reason", "closed"]);
        fleet.until("it is released", |f| KEEPERS.iter().all(|name| is_held(f, name) == Some(false)));
        prune_and_kill(&mut fleet, leads, victim);
        fleet.get(leads).kill();
        fleet.start(leads);
        fleet.start(victim);
        fleet.until("the segment is gone everywhere", |f| {
            KEEPERS.iter().all(|name| ["seg", "leaf"].iter().all(|ending| !first_segment(f, name, ending).exists()))
        });
    });
    leader(&fleet).await;
    write(&dp_1, RECORDS, RECORDS + 100).await;
    tokio::task::block_in_place(|| {
        verify_equal(&fleet, &KEEPERS);
        let stays = |name: &str| std::fs::read(first_segment(&fleet, name, "pruned")).unwrap();
        for name in KEEPERS {
            assert_eq!(stays(name), stays(leads), "{name} keeps something else of the segment");
            let output = provost().args(["audit", "verify"]).arg(audit_dir(&fleet, name)).output().unwrap();
            assert!(text(&output).contains("records 0 to 65536 were pruned"), "{name}: {}", text(&output));
        }
    });
}
