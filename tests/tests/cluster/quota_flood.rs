//! A quota of N calls holds for five data-plane nodes together: never more than N run, whoever is
//! killed or stands still; and while all are well, hardly fewer.
//!
//! What ran is counted twice: by the answers that callers got, and by the intents in the nodes' audit
//! logs, of which there is one for each call that ran. A call of which no answer came may have run: it
//! is in the log.
//!
//! `PROVOST_QUOTA_LIMIT` (500) is N, `PROVOST_QUOTA_RUNS` (1) is how many runs of each kind,
//! `PROVOST_QUOTA_SEED` (1) chooses who is hurt.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use crate::{
    cluster::{Cluster, HEAL_LIMIT},
    fleet::Fleet,
    flood::{Flooded, flood, knows},
    harness::text,
};

const NODES: usize = 5;
/// Of a healthy run at most `limit / this` calls may be missing.
const WASTE: u64 = 1_000;
/// Faults need a while: a flood among them is stretched to at least this.
const LEAST_WITH_FAULTS: Duration = Duration::from_secs(15);
/// A flood may take so long, and as much again for each call.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);
const CALL_SHARE: Duration = Duration::from_millis(30);
/// No test of this file takes longer.
const LONGEST_TEST: Duration = Duration::from_secs(30 * 60);

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_healthy_nodes_is_admitted_up_to_the_limit() {
    let limit = variable("PROVOST_QUOTA_LIMIT", 500);
    for (run, counted) in floods("healthy", limit, None).await {
        assert_eq!(run.admitted, counted, "every call that ran was answered");
        assert!(run.admitted <= limit, "{} of {limit} were admitted", run.admitted);
        assert!(run.admitted >= limit - limit / WASTE, "only {} of {limit} were admitted: {run:?}", run.admitted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_among_killed_and_frozen_nodes_never_exceeds_the_limit() {
    let limit = variable("PROVOST_QUOTA_LIMIT", 500);
    let seed = variable("PROVOST_QUOTA_SEED", 1);
    for (run, counted) in floods("with faults", limit, Some(seed)).await {
        assert!(run.admitted <= counted, "{} answers of {counted} calls", run.admitted);
        assert!(counted <= limit, "{counted} of {limit} calls ran");
        // The faults must leave something to test.
        assert!(counted > limit / 10, "only {counted} of {limit} calls ran: {run:?}");
    }
}

/// Runs the floods one after the other, each under a quota of its own, and counts them in the logs.
async fn floods(kind: &str, limit: u64, seed: Option<u64>) -> Vec<(Flooded, u64)> {
    if near_the_end_of_a_month() {
        println!("quota flood: SKIPPED, the month and the quota with it end while it would run");
        return Vec::new();
    }
    let Some(cluster) = Cluster::start().await else { return Vec::new() };
    let fleet = Fleet::join(&cluster, NODES).await;
    let urls: Vec<String> = fleet.nodes.iter().map(|node| node.mcp.clone()).collect();
    let callers = urls.len() * 4;
    let pause = match seed {
        Some(_) => LEAST_WITH_FAULTS * u32::try_from(callers).unwrap() / u32::try_from(limit).unwrap(),
        None => Duration::ZERO,
    };
    let longest = FLOOD_LIMIT + CALL_SHARE * u32::try_from(limit).unwrap();
    let mut ran = Vec::new();
    for run in 0..variable("PROVOST_QUOTA_RUNS", 1) {
        // Five processes that start keep a small machine busy enough for an election.
        cluster.agreed(HEAL_LIMIT).await;
        let tenant = format!("flood-{run}");
        let token = tenant_with_quota(&cluster, &tenant, limit);
        wait_until_known(&urls, &token).await;
        let stop = AtomicBool::new(false);
        let flooding = async {
            let flooded = flood(&urls, &token, pause, longest).await;
            stop.store(true, Ordering::SeqCst);
            flooded
        };
        let flooded = match seed {
            Some(seed) => tokio::join!(flooding, hurt(&cluster, &fleet, seed + run, &stop)).0,
            None => flooding.await,
        };
        ran.push((tenant, flooded));
    }
    fleet.stop().await;
    let counted: Vec<(Flooded, u64)> = ran
        .into_iter()
        .map(|(tenant, flooded)| {
            let intents = fleet.nodes.iter().map(|node| node.records(&tenant, "intent")).sum();
            (flooded, intents)
        })
        .collect();
    for (run, (flooded, intents)) in counted.iter().enumerate() {
        let a_second = flooded.admitted as f64 / flooded.took.as_secs_f64().max(0.001);
        println!(
            "quota flood {kind}, run {run}: limit {limit}; answered {}, in the audit logs {intents}; {} refused, {} \
             not decided, {} without an answer; {:.1} s, {a_second:.0} calls/s",
            flooded.admitted,
            flooded.exceeded,
            flooded.unknown,
            flooded.lost,
            flooded.took.as_secs_f64(),
        );
        assert!(flooded.strange.is_empty(), "strange answers: {:#?}", flooded.strange);
    }
    counted
}

/// A tenant whose agent may call `echo.echo` so many times a month; the agent's token.
fn tenant_with_quota(cluster: &Cluster, tenant: &str, limit: u64) -> String {
    let document = |kind: &str, name: &str, spec: &str| {
        format!("apiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: {tenant} }}\nspec: {spec}\n")
    };
    let yaml = [
        format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: {tenant} }}\nspec: {{}}\n"),
        document("Principal", "bot", "{ type: agent }"),
        document("Plugin", "echo", "{ source: { builtin: { name: echo } } }"),
        document("Role", "all", "{ rules: [{ tools: ['*'] }] }"),
        document("RoleBinding", "all", "{ role: all, principals: [bot] }"),
        document("Quota", "calls", &format!("{{ limit: {limit}, unit: calls, window: month }}")),
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tenant.yaml");
    std::fs::write(&file, yaml.join("---\n")).unwrap();
    let applied = cluster.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    let made = cluster.cli(&["token", "create", "--tenant", tenant, "--principal", "bot", "--json"]);
    assert!(made.status.success(), "{}", text(&made));
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

/// The token came after the quota: a node that knows it runs both.
async fn wait_until_known(urls: &[String], token: &str) {
    let began = Instant::now();
    for url in urls {
        while !knows(url, token).await {
            assert!(began.elapsed() < HEAL_LIMIT, "{url} does not get the quota");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Kills and freezes nodes and leaders, one at a time, until it is told to stop; then waits until
/// everything runs again.
async fn hurt(cluster: &Cluster, fleet: &Fleet, seed: u64, stop: &AtomicBool) {
    let mut state = seed;
    // A linear congruential generator (Knuth, MMIX): the order of faults, not their effect, repeats.
    let mut range = |from: u64, to: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (state >> 33) % (to - from)
    };
    let (mut kills, mut freezes, mut leaders) = (0, 0, 0);
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(range(300, 2_500))).await;
        let node = &fleet.nodes[usize::try_from(range(0, NODES as u64)).unwrap()];
        let while_down = Duration::from_millis(range(100, 2_500));
        match range(0, 10) {
            0..=4 => {
                node.kill();
                tokio::time::sleep(while_down).await;
                node.start();
                node.listens().await;
                kills += 1;
            }
            5 | 6 => {
                node.pause();
                tokio::time::sleep(while_down).await;
                node.resume();
                freezes += 1;
            }
            which => {
                let leader = cluster.leader().await;
                if which < 9 {
                    cluster.kill(&leader);
                } else {
                    cluster.pause(&leader);
                    tokio::time::sleep(while_down).await;
                    cluster.resume(&leader);
                }
                leaders += 1;
            }
        }
    }
    cluster.agreed(HEAL_LIMIT).await;
    println!("quota flood: {kills} nodes killed, {freezes} frozen, {leaders} leaders hurt, seed {seed}");
}

/// Months are those of the calendar: no flood may see two.
fn near_the_end_of_a_month() -> bool {
    let now = OffsetDateTime::now_utc();
    (now + LONGEST_TEST).month() != now.month()
}
