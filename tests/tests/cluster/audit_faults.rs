//! The audit log's nodes die, alone and together, while agents call through two data-plane nodes that
//! keep no log themselves.
//!
//! `PROVOST_CLUSTER_SECONDS` makes the leader-kill test longer than its 15 seconds, `PROVOST_AUDIT_RATE`
//! (calls a second, default 60) faster.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    audit_scene::{Agent, DATA, Ended, KEEPERS, leader, recorded, scene, scene_with, verify_equal},
    matrix,
    processes::{Fleet, SOON, scrape, wipe},
};

/// Between one kill and the next.
const KILL_PERIOD: Duration = Duration::from_secs(5);
/// A killed node is started again after so long.
const DOWN: Duration = Duration::from_millis(1_500);
/// A record is waited for five seconds at most; a call has two, of which one can meet the outage.
const CALL_LIMIT: Duration = Duration::from_secs(8);
/// A leader is frozen for so long: another leads long before.
const FROZEN: Duration = Duration::from_secs(6);
/// Calls that a replica misses: an intent and an outcome each, several times what the Raft log keeps of them.
const CALLS_BEHIND: usize = 50;
/// Nobody is elected anew because a busy machine is late: elections wait four times as long as by default.
const CALM: &str = "heartbeat_ms = 300\nelection_min_ms = 2000\nelection_max_ms = 4000\n";
/// Calls in flight; more means that everything stands still.
const MAX_IN_FLIGHT: usize = 4_000;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
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
    for case in ["leader change mid-batch, as processes", "client retry, as processes"] {
        matrix::row(case, "each record once on every replica", "2", "-");
    }
}

/// A leader that was frozen until another leads wakes up and believes that it still does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_zombie_leader_adds_and_doubles_nothing() {
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("audit-zombie"));
    let agent = Agent::new(&fleet, token);
    agent.ready().await;
    let zombie = leader(&fleet).await;
    let mut ended = Vec::new();
    for _ in 0..20 {
        ended.push(agent.echo().await);
    }
    fleet.get(zombie).signal(Signal::STOP);
    let frozen = Instant::now();
    while frozen.elapsed() < FROZEN {
        ended.push(agent.echo().await);
    }
    // What it had on its way goes out now, to a group that has moved on.
    fleet.get(zombie).signal(Signal::CONT);
    for _ in 0..50 {
        ended.push(agent.echo().await);
    }
    leader(&fleet).await;
    assert!(ended.iter().filter(|e| e.refusal.is_none()).count() > 70, "hardly any call was answered");
    tokio::task::block_in_place(|| {
        for name in DATA {
            assert!(fleet.get(name).terminate().1.success(), "{name} did not end well");
        }
        verify_equal(&fleet, &KEEPERS);
    });
    let calls = recorded(&fleet, zombie);
    for e in ended.iter().filter(|e| e.refusal.is_none()) {
        assert_eq!(calls.get(&e.id).cloned().unwrap_or_default(), ["intent", "outcome"], "call {} was answered", e.id);
    }
    matrix::row("zombie leader, as processes", "each record once on every replica", "2", "-");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_minority_of_the_audit_log_refuses_and_nothing_runs_without_an_intent() {
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("audit-minority"));
    let agent = Agent::new(&fleet, token);
    agent.ready().await;
    leader(&fleet).await;
    let run = |name: &str| {
        let (agent, name) = (agent.clone(), name.to_owned());
        async move { agent.call("count.run", json!({ "as": name })).await }
    };
    let ran = |fleet: &Fleet, name: &str| {
        let runs = std::fs::read_to_string(fleet.path("runs")).unwrap_or_default();
        runs.lines().filter(|line| *line == name).count()
    };
    for _ in 0..2 {
        let began = Instant::now();
        while let Some(why) = run("before").await.refusal {
            assert!(began.elapsed() < SOON, "the tool is not there: {why}");
        }
    }
    assert!(ran(&fleet, "before") >= 2, "the tool counts nothing");

    let (gone, left) = (["au-1", "au-2"], "au-3");
    gone.iter().for_each(|name| fleet.get(name).kill());
    let mut tried = BTreeSet::new();
    for _ in 0..4 {
        let refused = run("refused").await;
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
        let again = run("after").await;
        match again.refusal {
            None => break,
            Some(why) => assert!(began.elapsed() < SOON, "{left} and {} do not heal: {why}", gone[0]),
        }
    }
    fleet.start(gone[1]);
    leader(&fleet).await;
    assert_eq!(ran(&fleet, "refused"), 0, "a call ran that was refused for want of a record");
    assert!(ran(&fleet, "after") >= 1);
    tokio::task::block_in_place(|| verify_equal(&fleet, &KEEPERS));
    for (id, phases) in recorded(&fleet, left).iter().filter(|(id, _)| tried.contains(id)) {
        assert_eq!(*phases, ["intent", "outcome"], "call {id} has no end");
    }
    matrix::row("minority partition refuses", "refused in time; nothing ran", "2", "-");
}

/// An index that a node tells of its replica of the log; 0: none.
fn index(fleet: &Fleet, at: &str, which: &str) -> u64 {
    let begins = format!("provost_raft_{which}_index{{group=\"audit\"}} ");
    let page = scrape(fleet.servers[at].metrics).unwrap_or_default();
    let told = page.lines().find_map(|line| line.strip_prefix(&begins)?.trim().parse::<f64>().ok());
    told.map_or(0, |index| index as u64)
}

/// The Raft log is short: who comes late takes a snapshot, and the records from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_is_far_behind_takes_the_records_from_another() {
    let keep = [("PROVOST_TEST_AUDIT_KEEP", "20")];
    let (mut fleet, token) = tokio::task::block_in_place(|| scene_with("audit-behind", &keep, CALM));
    let agent = Agent::new(&fleet, token);
    agent.ready().await;
    let leads = leader(&fleet).await;
    let late = KEEPERS.into_iter().rfind(|name| *name != leads).unwrap();
    let had = tokio::task::block_in_place(|| index(&fleet, late, "last_log"));
    assert!(had > 0, "{late} has no log");
    fleet.get(late).kill();
    // Two of three are left, and each record needs both: a call may be refused meanwhile, which is another test's.
    // Raft lets go of what has a snapshot when nobody is being sent it, which is not after each snapshot.
    let began = Instant::now();
    while !tokio::task::block_in_place(|| {
        KEEPERS.into_iter().filter(|name| *name != late).all(|name| index(&fleet, name, "purged") > had)
    }) {
        assert!(began.elapsed() < SOON, "the others keep what {late} lacks");
        agent.answered(CALLS_BEHIND).await;
    }
    tokio::task::block_in_place(|| {
        fleet.get(late).start(&keep);
        fleet.join("cp-1", "au-4", "audit-log");
        fleet.until("both have taken records", |f| {
            [late, "au-4"].iter().all(|name| f.servers[*name].log().contains("takes records from another replica"))
        });
    });
    agent.answered(10).await;
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
