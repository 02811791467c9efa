//! Any replica takes commands and reads; a command is never logged twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    Journal, PATIENCE,
    cluster::{Cluster, calm},
    numbers, quick, until,
};
use crate::{
    Group, GroupConfig, GroupError, Loopback, Peer, RpcKind, Transport, TransportError, codec, propose::Answers,
    route::Refusal, transport::TransportFuture,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_takes_commands_and_reads_its_own_writes() {
    let cluster = Cluster::start(3).await;
    let mut last = 0;
    for n in 0..30_u32 {
        let node = &cluster.nodes[&(u64::from(n) % 3 + 1)];
        let command = n.to_be_bytes().to_vec();
        let done = match n % 2 {
            0 => node.group.propose(command.clone()).await.unwrap(),
            _ => node.group.propose_at_once(command.clone()).await.unwrap(),
        };
        assert_eq!(done.reply, done.index.to_string().into_bytes());
        assert!(done.index > last, "in order");
        last = done.index;
        assert!(n % 2 == 1 || node.journal.commands().contains(&command), "applied where it was proposed");
        let reader = &cluster.nodes[&(u64::from(n + 1) % 3 + 1)];
        assert!(reader.group.read_barrier().await.unwrap() >= done.index);
        assert!(reader.journal.commands().contains(&command), "a barrier elsewhere sees it");
    }
    cluster.agree_on(&numbers(0..30)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_forwarded_commands_at_once_are_each_applied_once() {
    for gathers in [true, false] {
        let cluster = Cluster::start_with(3, if gathers { calm } else { apart }).await;
        let leader = cluster.leader_other_than(0).await;
        let follower = cluster.group(cluster.follower(leader)).clone();
        let proposals = (0..500_u32).map(|n| {
            let (follower, command) = (follower.clone(), n.to_be_bytes().to_vec());
            tokio::spawn(async move {
                let proposed =
                    if gathers { follower.propose(command).await } else { follower.propose_at_once(command).await };
                proposed.unwrap().index
            })
        });
        let mut indexes = futures::future::try_join_all(proposals).await.unwrap();
        indexes.sort_unstable();
        indexes.dedup();
        assert_eq!(indexes.len(), 500);
        cluster.agree_on(&numbers(0..500)).await;
        cluster.stop().await;
    }
}

/// Commands go one by one, and followers hear of commits with the next entries.
fn apart(config: &mut GroupConfig) {
    calm(config);
    config.forwarding.gathers = false;
    config.timings.commit_notice_ms = 5;
    config.timings.spare_wait_ms = 4;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_command_crosses_the_wire() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader_other_than(0).await;
    let follower = &cluster.nodes[&cluster.follower(leader)];
    let large = vec![7; crate::MAX_PROPOSAL_BYTES];
    follower.group.propose(large.clone()).await.unwrap();
    for node in cluster.nodes.values() {
        until("everybody has it", || node.journal.commands() == [large.clone()]).await;
    }
    assert_eq!(follower.group.propose(vec![0; large.len() + 1]).await.unwrap_err().code(), "PV-RAFT-TOO-LARGE");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_message_is_never_forwarded_again() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader_other_than(0).await;
    let follower = cluster.group(cluster.follower(leader));
    let commands = codec::encode(&vec![Bytes::from_static(b"no"), Bytes::from_static(b"nor this")]).unwrap();
    let answer = follower.handle(RpcKind::Propose, commands.into()).await.unwrap();
    let answer: Result<Answers, Refusal> = codec::decode(&answer).unwrap();
    let refused = || Err(Refusal::NotLeader { leader: Some(leader) });
    assert_eq!(answer, Ok(vec![refused(), refused()]));
    let answer = follower.handle(RpcKind::ReadIndex, Bytes::new()).await.unwrap();
    let answer: Result<u64, Refusal> = codec::decode(&answer).unwrap();
    assert_eq!(answer, Err(Refusal::NotLeader { leader: Some(leader) }));
    for node in cluster.nodes.values() {
        assert_eq!(node.journal.commands().len(), 0);
    }
    cluster.stop().await;
}

/// Delivers forwarded commands and loses their answers, or does not deliver them.
struct Unlucky {
    inner: Loopback,
    loses_answers: Arc<AtomicBool>,
    unreachable: Arc<AtomicBool>,
}

impl Transport for Unlucky {
    fn call(&self, peer: Peer, kind: RpcKind, body: Bytes, timeout: Duration) -> TransportFuture {
        if kind == RpcKind::Propose && self.unreachable.load(Ordering::SeqCst) {
            let refused = TransportError::Unreachable("no way".to_owned());
            return Box::pin(std::future::ready(Err(refused)));
        }
        let call = self.inner.call(peer, kind, body, timeout);
        let loses = kind == RpcKind::Propose && self.loses_answers.load(Ordering::SeqCst);
        Box::pin(async move {
            let answer = call.await;
            if loses { Err(TransportError::Failed("the answer was lost".to_owned())) } else { answer }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_unknown_fate_is_not_sent_again_and_an_unsent_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let network = Loopback::new();
    let (loses_answers, unreachable) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let journal = Journal::default();
        let inner = network.of_node(id);
        let transport = Unlucky { inner, loses_answers: loses_answers.clone(), unreachable: unreachable.clone() };
        let folder = dir.path().join(id.to_string());
        let mut config = quick(id);
        config.forwarding.leader_wait_ms = 8_000;
        let group = Group::open_with(&folder, config, journal.clone(), Arc::new(transport)).await.unwrap();
        network.attach(&group);
        nodes.push((group, journal));
    }
    nodes[0].0.initialize((1..=3).map(|id| (id, String::new())).collect()).await.unwrap();
    for (group, _) in &nodes {
        group.wait_ready(PATIENCE).await.unwrap();
    }
    let (follower, journal) = nodes.iter().find(|(group, _)| !group.is_leader()).unwrap();

    let error = follower.propose(b"once".to_vec()).await.unwrap_err();
    assert!(matches!(error, GroupError::OutcomeUnknown), "{error}");
    until("it was done", || journal.commands() == [b"once".to_vec()]).await;

    loses_answers.store(false, Ordering::SeqCst);
    unreachable.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn({
        let follower = follower.clone();
        async move { follower.propose(b"later".to_vec()).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it waits for a leader that it can reach");
    unreachable.store(false, Ordering::SeqCst);
    waiting.await.unwrap().unwrap();
    assert_eq!(journal.commands(), [b"once".to_vec(), b"later".to_vec()]);

    unreachable.store(true, Ordering::SeqCst);
    let error = follower.propose(b"never".to_vec()).await.unwrap_err();
    assert_eq!(error.code(), "PV-RAFT-NO-QUORUM", "{error}");
    assert!(error.not_logged() && error.to_string().contains("no way"), "it says why: {error}");
    for (group, journal) in &nodes {
        group.read_barrier().await.unwrap();
        assert_eq!(journal.commands().len(), 2, "nothing was logged twice or in secret");
    }
    for (group, _) in &nodes {
        group.shutdown().await.unwrap();
    }
}

/// Does not answer forwarded commands while it is told so.
struct Silent {
    inner: Loopback,
    is_silent: Arc<AtomicBool>,
    unanswered: Arc<AtomicUsize>,
}

impl Transport for Silent {
    fn call(&self, peer: Peer, kind: RpcKind, body: Bytes, timeout: Duration) -> TransportFuture {
        if kind == RpcKind::Propose && self.is_silent.load(Ordering::SeqCst) {
            self.unanswered.fetch_add(1, Ordering::SeqCst);
            return Box::pin(std::future::pending());
        }
        self.inner.call(peer, kind, body, timeout)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_commands_without_an_answer_does_not_wait_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let network = Loopback::new();
    let (is_silent, unanswered) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let mut groups = Vec::new();
    for id in 1..=3 {
        let (is_silent, unanswered) = (is_silent.clone(), unanswered.clone());
        let transport = Silent { inner: network.of_node(id), is_silent, unanswered };
        let folder = dir.path().join(id.to_string());
        let opened = Group::open_with(&folder, quick(id), Journal::default(), Arc::new(transport)).await;
        let group = opened.unwrap();
        network.attach(&group);
        groups.push(group);
    }
    groups[0].initialize((1..=3).map(|id| (id, String::new())).collect()).await.unwrap();
    for group in &groups {
        group.wait_ready(PATIENCE).await.unwrap();
    }
    let follower = groups.iter().find(|group| !group.is_leader()).unwrap();
    let propose = |n: u8| {
        let follower = follower.clone();
        tokio::spawn(async move { follower.propose(vec![n]).await })
    };
    let mut lost = Vec::new();
    for n in 1..=2 {
        lost.push(propose(n));
        until("it is under way", || unanswered.load(Ordering::SeqCst) == usize::from(n)).await;
    }
    is_silent.store(false, Ordering::SeqCst);
    // Two are under way and this is one; those have 30 seconds.
    let third = tokio::time::timeout(Duration::from_secs(15), propose(3)).await;
    third.expect("it does not wait for them").unwrap().unwrap();
    assert!(lost.iter().all(|lost| !lost.is_finished()), "their fate is not known yet");
    lost.iter().for_each(tokio::task::JoinHandle::abort);
    for group in &groups {
        group.shutdown().await.unwrap();
    }
}
