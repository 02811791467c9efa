//! Changes of the membership over gRPC.

use std::time::Duration;

use super::{PATIENCE, cluster::Cluster, numbers, until};
use crate::Promotion;

async fn propose(cluster: &Cluster, node: u64, range: std::ops::Range<u32>) {
    for n in range {
        cluster.group(node).propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_grows_to_three_by_learners_that_promote_themselves() {
    let mut cluster = Cluster::start_with(1, |config| {
        config.membership.promotion = Some(Promotion { max_lag: 250, stable_ms: 1_000 });
    })
    .await;
    propose(&cluster, 1, 0..300).await;
    until("the log is purged", || cluster.group(1).metrics().purged.is_some()).await;
    for id in [2, 3] {
        cluster.open(id).await;
        let address = cluster.nodes[&id].address.to_string();
        let asked = if id == 3 { 2 } else { 1 };
        cluster.group(asked).add_learner_within(id, address.clone(), PATIENCE).await.unwrap();
        // Again: nothing to do. At another address: somebody else's id.
        cluster.group(1).add_learner_nowait(id, address).await.unwrap();
        let taken = cluster.group(1).add_learner_nowait(id, "127.0.0.1:9".to_owned()).await.unwrap_err();
        assert_eq!(taken.code(), "PV-RAFT-MEMBERSHIP", "{taken}");
        until("the learner votes", || cluster.group(id).metrics().voters.contains(&id)).await;
        assert!(cluster.nodes[&id].journal.installs() >= 1, "it came by snapshot");
    }
    propose(&cluster, 3, 300..310).await;
    cluster.agree_on(&numbers(0..310)).await;
    let addresses = &cluster.group(3).metrics().addresses;
    assert_eq!(addresses.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_is_not_asked_to_vote_stays_one() {
    let mut cluster = Cluster::start(1).await;
    cluster.open(2).await;
    let address = cluster.nodes[&2].address.to_string();
    cluster.group(1).add_learner(2, address).await.unwrap();
    propose(&cluster, 2, 0..5).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(cluster.group(2).metrics().learners, [2].into());
    cluster.group(2).promote(2).await.unwrap();
    cluster.group(2).promote(2).await.unwrap();
    assert_eq!(cluster.group(1).metrics().voters, [1, 2].into());
    let error = cluster.group(1).promote(7).await.unwrap_err();
    assert!(error.to_string().contains("node 7 is not a learner"), "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request_of_any_replica() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader_other_than(0).await;
    let to = cluster.follower(leader);
    let asked = *cluster.nodes.keys().find(|id| ![leader, to].contains(id)).unwrap();
    cluster.group(asked).transfer_leader(to).await.unwrap();
    assert_eq!(cluster.leader_other_than(0).await, to);
    propose(&cluster, leader, 0..5).await;
    cluster.agree_on(&numbers(0..5)).await;
    let error = cluster.group(asked).transfer_leader(9).await.unwrap_err();
    assert_eq!(error.code(), "PV-RAFT-MEMBERSHIP", "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_is_removed_but_never_below_the_minimum() {
    let mut cluster = Cluster::start_with(3, |config| config.membership.min_voters = 2).await;
    let leader = cluster.leader_other_than(0).await;
    let dead = cluster.follower(leader);
    let living = *cluster.nodes.keys().find(|id| ![leader, dead].contains(id)).unwrap();
    cluster.kill(dead).await;
    until("the leader notices", || {
        let metrics = cluster.group(leader).metrics();
        metrics.followers[&dead].acked_ago.is_none_or(|ago| ago > Duration::from_millis(1_200))
    })
    .await;
    let error = cluster.group(leader).remove(living).await.unwrap_err();
    assert!(error.to_string().contains("would remain only 1 answer"), "{error}");
    cluster.group(living).remove(dead).await.unwrap();
    assert_eq!(cluster.group(leader).metrics().voters, [leader, living].into());
    assert!(!cluster.group(leader).metrics().addresses.contains_key(&dead));
    let error = cluster.group(leader).remove(living).await.unwrap_err();
    assert!(error.to_string().contains("1 voters would remain and 2 must"), "{error}");
    propose(&cluster, living, 0..5).await;
    cluster.agree_on(&numbers(0..5)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_first() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader_other_than(0).await;
    cluster.group(leader).remove(leader).await.unwrap();
    let new = cluster.leader_other_than(leader).await;
    propose(&cluster, new, 0..5).await;
    assert!(!cluster.group(new).metrics().voters.contains(&leader));
    cluster.stop().await;
}
