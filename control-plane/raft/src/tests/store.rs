//! The log store: openraft's suite, whose store it is, and damage to snapshots.

use std::{io::Read, path::Path};

use openraft::{
    EntryPayload, StorageError,
    storage::{IOFlushed, RaftLogStorage, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    vote::RaftLeaderId,
};
use tempfile::TempDir;

use super::{Journal, config, single::single};
use crate::{
    AppliedState, Group, GroupConfig,
    adapter::MachineAdapter,
    codec, db,
    log_store::LogStore,
    raft_types::{LogEntry, LogId, Membership, SnapshotMeta, Types, Vote},
    recovery, sim,
    snapshot_file::{SnapshotDir, SnapshotFile},
};

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
    sim::seeded(Suite::test_all(Stores)).await.unwrap();
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
async fn a_node_that_has_run_before_does_not_start_without_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = config(1);
    known.expect_existing = true;
    for attempt in 0..2 {
        let error = Group::open(dir.path(), known.clone(), Journal::default()).await.err().unwrap();
        assert_eq!(error.code(), "PV-RAFT-WIPED", "attempt {attempt}: {error}");
        assert!(error.to_string().contains("remove node 1 from the cluster"), "{error}");
    }
    // A folder with a database that never was a replica's is as empty.
    drop(rocksdb::DB::open_default(dir.path().join("raft")).unwrap());
    let error = Group::open(dir.path(), known.clone(), Journal::default()).await.err().unwrap();
    assert_eq!(error.code(), "PV-RAFT-WIPED", "{error}");

    let dir = tempfile::tempdir().unwrap();
    let (group, _) = single(dir.path()).await;
    group.shutdown().await.unwrap();
    drop(group);
    let group = Group::open(dir.path(), known, Journal::default()).await.unwrap();
    group.shutdown().await.unwrap();
}

#[test]
fn a_flipped_byte_of_a_snapshot_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = SnapshotDir::open(dir.path().to_owned()).unwrap();
    let file = snapshots.write(&SnapshotMeta::default(), |out| out.write_all(b"the state")).unwrap();
    file.verify().unwrap();
    let mut bytes = std::fs::read(&file.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file.path, bytes).unwrap();
    let damaged = SnapshotFile::open(&file.path).and_then(|(_, file)| file.verify());
    assert!(damaged.is_err());
}

/// A build that began before an install and ends after it.
#[test]
fn an_older_snapshot_never_replaces_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = SnapshotDir::open(dir.path().to_owned()).unwrap();
    let at = |index| SnapshotMeta { last_log_id: Some(log_id(1, index)), ..SnapshotMeta::default() };
    let write = |index: u64| snapshots.write(&at(index), |out| out.write_all(&index.to_be_bytes())).unwrap();
    let current = || snapshots.current().unwrap().unwrap().0.last_log_id.unwrap().index;
    write(248);
    let stale = write(149);
    assert_eq!(current(), 248);
    let mut read = Vec::new();
    stale.data().read_to_end(&mut read).unwrap();
    assert_eq!(read, 149_u64.to_be_bytes(), "whoever built it can still read it");
    write(300);
    assert_eq!(current(), 300);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Vote::new(term, 1).leader_id.to_committed(), index)
}

/// A log with these entries, and a machine that has applied up to `applied`.
async fn stores(dir: &Path, entries: &[LogId], applied: LogId) -> (LogStore, MachineAdapter) {
    let db = db::open(&dir.join("raft"), &config(1)).unwrap();
    let (open, _) = tokio::sync::watch::channel(());
    let mut log = LogStore::new(db, "repair", open.clone()).unwrap();
    let entries = entries.iter().map(|id| LogEntry { log_id: *id, payload: EntryPayload::Blank });
    log.append(entries.collect::<Vec<_>>(), IOFlushed::noop()).await.unwrap();
    let journal = Journal::default();
    let state = codec::encode(&(Some(applied), Membership::default())).unwrap();
    journal.0.lock().unwrap().applied = Some(AppliedState::from_bytes(state));
    let snapshots = SnapshotDir::open(dir.join("snapshots")).unwrap();
    (log, MachineAdapter::new(Box::new(journal), snapshots, open).unwrap())
}

#[tokio::test]
async fn a_log_that_lost_what_the_machine_kept_continues_behind_it() {
    let kept = [log_id(1, 0), log_id(1, 1), log_id(1, 2), log_id(1, 3)];
    for (applied, repaired) in [
        (log_id(1, 3), false),
        (log_id(1, 2), false),
        // The log ends before it.
        (log_id(2, 7), true),
        (log_id(1, 4), true),
        // The log has other entries there: of a leader that was replaced.
        (log_id(2, 2), true),
        (log_id(2, 3), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut machine) = stores(dir.path(), &kept, applied).await;
        // Again: nothing more to do.
        for _ in 0..2 {
            recovery::reconcile(&mut log, &mut machine).await.unwrap();
            let state = log.get_log_state().await.unwrap();
            let snapshot = machine.get_current_snapshot().await.unwrap().map(|s| s.meta.last_log_id);
            if repaired {
                assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(applied), Some(applied)));
                assert_eq!(snapshot, Some(Some(applied)));
            } else {
                assert_eq!((state.last_purged_log_id, state.last_log_id), (None, Some(log_id(1, 3))));
                assert_eq!(snapshot, None);
            }
        }
    }
}
