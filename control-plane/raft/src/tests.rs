//! The log-store suite of openraft, and groups of one and three on real RocksDB.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use crate::{
    AppliedState, Entry, Group, GroupConfig, GroupError, Loopback, Machine, Retention, Role, SnapshotWriter, Timings,
    adapter::MachineAdapter,
    db,
    log_store::LogStore,
    raft_types::Types,
    snapshot_file::{SnapshotDir, SnapshotFile},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps the commands in memory: after a restart it knows nothing, which is the hardest case of
/// a machine that lost its unsynced tail.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<JournalState>>);

#[derive(Default)]
struct JournalState {
    applied: Option<AppliedState>,
    commands: Vec<Vec<u8>>,
    installs: usize,
}

impl Journal {
    fn commands(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().commands.clone()
    }
}

impl Machine for Journal {
    fn last_applied(&self) -> io::Result<Option<AppliedState>> {
        Ok(self.0.lock().unwrap().applied.clone())
    }

    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>> {
        let mut state = self.0.lock().unwrap();
        let mut replies = Vec::new();
        for entry in batch {
            state.applied = Some(entry.applied);
            let reply = match entry.payload {
                None => Vec::new(),
                Some(command) => {
                    state.commands.push(command.to_vec());
                    entry.index.to_string().into_bytes()
                }
            };
            replies.push(reply);
        }
        Ok(replies)
    }

    fn snapshot(&self) -> io::Result<SnapshotWriter> {
        let commands = self.commands();
        Ok(Box::new(move |out| out.write_all(&postcard::to_stdvec(&commands).map_err(io::Error::other)?)))
    }

    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes)?;
        let mut state = self.0.lock().unwrap();
        state.commands = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
        state.applied = Some(applied);
        state.installs += 1;
        Ok(())
    }
}

fn config(node_id: u64) -> GroupConfig {
    GroupConfig::new(node_id, "test", "control")
}

async fn single(dir: &Path) -> (Group, Journal) {
    let journal = Journal::default();
    let group = Group::open(dir, config(1), journal.clone()).await.unwrap();
    group.initialize_single().await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    (group, journal)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Stores;

impl StoreBuilder<Types, LogStore, MachineAdapter, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, LogStore, MachineAdapter), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let db = db::open(&dir.path().join("raft"), &config(0)).unwrap();
        let snapshots = SnapshotDir::open(dir.path().join("snapshots")).unwrap();
        let (open, _) = tokio::sync::watch::channel(());
        let machine = Box::new(Journal::default());
        let adapter = MachineAdapter::new(machine, snapshots, open.clone()).unwrap();
        Ok((dir, LogStore::new(db, "suite", open).unwrap(), adapter))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_log_store_suite() {
    Suite::test_all(Stores).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) = single(dir.path()).await;
    let first = group.propose(b"one".to_vec()).await.unwrap();
    let second = group.propose(b"two".to_vec()).await.unwrap();
    assert!(second.index > first.index);
    assert_eq!(second.reply, second.index.to_string().into_bytes());
    assert_eq!(group.metrics().role, Role::Leader);
    assert!(group.read_barrier().await.unwrap() >= second.index);
    group.shutdown().await.unwrap();
    assert!(matches!(group.propose(b"late".to_vec()).await, Err(GroupError::Stopped)));
    drop(group);

    // With elections this far off, only one that is started at once ends in time.
    let mut patient = config(1);
    patient.timings.election_min_ms = 600_000;
    patient.timings.election_max_ms = 700_000;
    patient.timings.quorum_loss_probe_ms = 1_400_000;
    let journal = Journal::default();
    let group = Group::open(dir.path(), patient, journal.clone()).await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(journal.commands(), [b"one".to_vec(), b"two".to_vec()]);
    let third = group.propose(b"three".to_vec()).await.unwrap();
    assert!(third.index > second.index);
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_at_once_are_all_applied_once() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = single(dir.path()).await;
    let proposals = (0..500_u32).map(|n| {
        let group = group.clone();
        tokio::spawn(async move { group.propose(n.to_be_bytes().to_vec()).await.unwrap().index })
    });
    let mut indexes = futures::future::try_join_all(proposals).await.unwrap();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 500);
    let mut commands = journal.commands();
    commands.sort_unstable();
    let expected: Vec<_> = (0..500_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(commands, expected);
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_runs_only_as_what_it_was_made_for() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) = single(dir.path()).await;
    group.shutdown().await.unwrap();
    drop(group);
    let others = [
        GroupConfig::new(2, "test", "control"),
        GroupConfig::new(1, "other", "control"),
        GroupConfig::new(1, "test", "audit"),
    ];
    for other in others {
        let error = Group::open(dir.path(), other, Journal::default()).await.err().unwrap();
        assert_eq!(error.code(), "PV-RAFT-IDENTITY", "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_proposal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) = single(dir.path()).await;
    let error = group.propose(vec![0; crate::MAX_PROPOSAL_BYTES + 1]).await.unwrap_err();
    assert_eq!(error.code(), "PV-RAFT-TOO-LARGE");
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_purged_behind_a_snapshot_and_a_restart_begins_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    let mut small = config(1);
    small.retention = Retention { snapshot_every_entries: 50, keep_entries: 10 };
    let group = Group::open(dir.path(), small.clone(), journal).await.unwrap();
    group.initialize_single().await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    for n in 0..200_u32 {
        group.propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    until("the log is purged", || group.metrics().purged.is_some_and(|p| p > 50)).await;
    group.shutdown().await.unwrap();
    drop(group);

    let journal = Journal::default();
    let group = Group::open(dir.path(), small, journal.clone()).await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(journal.0.lock().unwrap().installs, 1);
    let expected: Vec<_> = (0..200_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(journal.commands(), expected);
    group.shutdown().await.unwrap();
}

#[test]
fn a_flipped_byte_of_a_snapshot_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = SnapshotDir::open(dir.path().to_owned()).unwrap();
    let file = snapshots.write(&crate::raft_types::SnapshotMeta::default(), |out| out.write_all(b"the state")).unwrap();
    file.verify().unwrap();
    let mut bytes = std::fs::read(&file.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file.path, bytes).unwrap();
    let damaged = SnapshotFile::open(&file.path).and_then(|(_, file)| file.verify());
    assert!(damaged.is_err());
}

struct Cluster {
    network: Loopback,
    nodes: BTreeMap<u64, (Group, Journal)>,
    _dir: TempDir,
}

impl Cluster {
    async fn start(voters: u64) -> Self {
        let mut cluster = Self { network: Loopback::new(), nodes: BTreeMap::new(), _dir: tempfile::tempdir().unwrap() };
        for id in 1..=voters {
            cluster.open(id).await;
        }
        let members = (1..=voters).map(|id| (id, String::new())).collect();
        cluster.nodes[&1].0.initialize(members).await.unwrap();
        cluster.leader().await;
        cluster
    }

    async fn open(&mut self, id: u64) {
        let mut config = config(id);
        config.timings = Timings {
            heartbeat_ms: 50,
            election_min_ms: 300,
            election_max_ms: 600,
            quorum_loss_probe_ms: 1_200,
            ..Timings::default()
        };
        config.retention = Retention { snapshot_every_entries: 100, keep_entries: 10 };
        let journal = Journal::default();
        let dir = self._dir.path().join(id.to_string());
        let transport = Arc::new(self.network.of_node(id));
        let group = Group::open_with(&dir, config, journal.clone(), transport).await.unwrap();
        self.network.attach(&group);
        self.nodes.insert(id, (group, journal));
    }

    async fn leader(&self) -> Group {
        self.leader_other_than(0).await
    }

    /// A node that can commit now.
    async fn leader_other_than(&self, not: u64) -> Group {
        let start = Instant::now();
        loop {
            for (id, (group, _)) in &self.nodes {
                if *id != not && group.is_leader() && group.read_barrier().await.is_ok() {
                    return group.clone();
                }
            }
            assert!(start.elapsed() < PATIENCE, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        for (group, _) in self.nodes.values() {
            group.shutdown().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_survive_a_cut_leader_and_agree() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    for n in 0..20_u32 {
        old.propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    let old_id = old.metrics().node_id;
    cluster.network.isolate(old_id);
    let new = cluster.leader_other_than(old_id).await;
    let stale = tokio::time::timeout(Duration::from_secs(3), old.read_barrier()).await;
    assert!(!matches!(stale, Ok(Ok(_))), "a cut leader confirmed a read");
    for n in 20..40_u32 {
        new.propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    cluster.network.heal(old_id);
    let expected: Vec<_> = (0..40_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    for (_, journal) in cluster.nodes.values() {
        until("all nodes agree", || journal.commands() == expected).await;
    }
    let follower = cluster.nodes.values().map(|(g, _)| g).find(|g| !g.is_leader()).unwrap();
    let refused = follower.propose(b"no".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), "PV-RAFT-NOT-LEADER");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_catches_up_by_snapshot_and_becomes_a_voter() {
    let mut cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    for n in 0..300_u32 {
        leader.propose(n.to_be_bytes().to_vec()).await.unwrap();
    }
    until("the log is purged", || leader.metrics().purged.is_some()).await;
    cluster.open(2).await;
    leader.add_learner(2, String::new()).await.unwrap();
    leader.change_voters([1, 2].into()).await.unwrap();
    leader.propose(b"last".to_vec()).await.unwrap();
    let journal = &cluster.nodes[&2].1;
    until("the new node has all", || journal.commands().len() == 301).await;
    assert!(journal.0.lock().unwrap().installs >= 1, "it came by snapshot");
    assert_eq!(journal.commands().last().unwrap(), b"last");
    assert_eq!(cluster.nodes[&2].0.metrics().voters, [1, 2].into());
    cluster.stop().await;
}
