//! What a cut network and a killed leader do to callers.

use std::time::{Duration, Instant};

use super::{
    PATIENCE,
    cluster::{Cluster, Way},
    numbers, until,
};
use crate::{GroupConfig, GroupError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start_with(3, |_| {}).await;
    let leader = cluster.leader_other_than(0).await;
    for n in 0..50_u32 {
        cluster.group(u64::from(n) % 3 + 1).propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    cluster.kill(leader).await;
    let start = Instant::now();
    let survivor = cluster.follower(leader);
    // One call waits for the new leader by itself. Only if it went out before this node saw that the
    // connection had ended is its fate unknown; the killed leader cannot have logged it.
    let command = 50_u32.to_be_bytes().to_vec();
    while let Err(error) = cluster.group(survivor).propose(command.clone()).await {
        assert!(matches!(error, GroupError::OutcomeUnknown), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    cluster.agree_on(&numbers(0..51)).await;

    cluster.open(leader).await;
    let address = cluster.nodes[&leader].address.to_string();
    cluster.set_ways(leader, Way::Open);
    cluster.group(survivor).update_address(leader, address.clone()).await.unwrap();
    cluster.agree_on(&numbers(0..51)).await;
    assert_eq!(cluster.group(survivor).metrics().addresses[&leader], address);
    cluster.stop().await;
}

/// Heartbeats alone would tell after the lease of five seconds and as long again.
fn slow_to_elect(config: &mut GroupConfig) {
    config.timings.election_min_ms = 4_999;
    config.timings.election_max_ms = 5_000;
    config.timings.quorum_loss_probe_ms = 20_000;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_connections_ended_is_replaced_when_its_lease_is_over() {
    let mut cluster = Cluster::start_with(3, slow_to_elect).await;
    let leader = cluster.leader_other_than(0).await;
    cluster.group(leader).propose(b"before".to_vec()).await.unwrap();
    let start = Instant::now();
    cluster.kill(leader).await;
    cluster.leader_other_than(leader).await;
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_while_the_leader_lives_unseat_nobody() {
    let cluster = Cluster::start_with(3, |config| {
        slow_to_elect(config);
        config.timings.election_min_ms = 1_999;
        config.timings.election_max_ms = 2_000;
    })
    .await;
    let leader = cluster.leader_other_than(0).await;
    let term = cluster.group(leader).metrics().term;
    cluster.set_ways(leader, Way::Cut);
    until("nobody answers", || cluster.group(leader).metrics().quorum_acked_ago > Some(Duration::from_millis(400)))
        .await;
    cluster.set_ways(leader, Way::Open);
    // Longer than the lease and both turns.
    let start = Instant::now();
    for n in 0_u32.. {
        cluster.group(leader).propose(n.to_be_bytes().to_vec()).await.unwrap();
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let now = cluster.group(leader).metrics();
    assert_eq!((now.leader, now.term), (Some(leader), term));
    cluster.stop().await;
}

async fn minority_refuses_and_heals(way: Way) {
    let cluster = Cluster::start_with(3, |config| config.forwarding.leader_wait_ms = 3_000).await;
    let old = cluster.leader_other_than(0).await;
    for n in 0..10_u32 {
        cluster.group(old).propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    cluster.set_ways(old, way);
    let new = cluster.leader_other_than(old).await;
    for n in 10..20_u32 {
        cluster.group(new).propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    let start = Instant::now();
    let error = cluster.group(old).propose(b"minority".to_vec()).await.unwrap_err();
    assert_eq!(error.code(), "PV-RAFT-NO-QUORUM", "{error}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let error = cluster.group(old).read_barrier().await.unwrap_err();
    assert_eq!(error.code(), "PV-RAFT-NO-QUORUM", "{error}");

    cluster.set_ways(old, Way::Open);
    let start = Instant::now();
    let command = 20_u32.to_be_bytes().to_vec();
    while let Err(error) = cluster.group(old).propose(command.clone()).await {
        assert!(error.not_logged(), "{error}");
        assert!(start.elapsed() < PATIENCE, "it did not heal: {error}");
    }
    cluster.agree_on(&numbers(0..21)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_leader_refuses_and_comes_back() {
    minority_refuses_and_heals(Way::Cut).await;
}

/// Nothing is closed: only silence tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_behind_a_network_that_drops_everything_refuses_and_comes_back() {
    minority_refuses_and_heals(Way::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_catches_up_by_snapshot_without_an_election() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader_other_than(0).await;
    let term = cluster.group(leader).metrics().term;
    let away = cluster.follower(leader);
    cluster.set_ways(away, Way::Cut);
    for n in 0..400_u32 {
        cluster.group(leader).propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    until("the log is purged", || cluster.group(leader).metrics().purged.is_some_and(|p| p > 100)).await;
    let behind = cluster.group(leader).metrics().followers[&away].clone();
    assert!(behind.lag >= 390, "{behind:?}");
    assert!(behind.acked_ago.is_none_or(|ago| ago > Duration::from_millis(300)), "{behind:?}");
    cluster.set_ways(away, Way::Open);
    cluster.agree_on(&numbers(0..400)).await;
    assert!(cluster.nodes[&away].journal.installs() >= 1, "it came by snapshot");
    let now = cluster.group(leader).metrics();
    assert_eq!((now.term, now.leader), (term, Some(leader)), "a node that comes back does not disturb the leader");
    until("the leader knows", || {
        let known = cluster.group(leader).metrics().followers[&away].clone();
        known.lag == 0 && known.acked_ago.is_some_and(|ago| ago < Duration::from_secs(1))
    })
    .await;
    cluster.stop().await;
}
