//! Groups of one.

use std::{path::Path, sync::mpsc, time::Duration};

use super::{Journal, PATIENCE, config, numbers, until};
use crate::{AppliedState, Entry, Group, GroupError, Machine, Retention, Role, SnapshotWriter};

pub(super) async fn single(dir: &Path) -> (Group, Journal) {
    let journal = Journal::default();
    let group = Group::open(dir, config(1), journal.clone()).await.unwrap();
    group.initialize_single().await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    (group, journal)
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

/// What need not wait for others is logged beside them, once, in the order of one that waits for each answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_a_batch_already_is_logged_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = single(dir.path()).await;
    let others = (100..200_u32).map(|n| {
        let group = group.clone();
        tokio::spawn(async move { group.propose(n.to_be_bytes().to_vec()).await.unwrap().index })
    });
    let others: Vec<_> = others.collect();
    let mut last = 0;
    for n in 0..100_u32 {
        let done = group.propose_at_once(n.to_be_bytes().to_vec()).await.unwrap();
        assert_eq!(done.reply, done.index.to_string().into_bytes(), "the answer is its own");
        assert!(done.index > last);
        last = done.index;
    }
    futures::future::try_join_all(others).await.unwrap();
    let commands = journal.commands();
    let mine = numbers(0..100);
    let at_once: Vec<Vec<u8>> = commands.iter().filter(|command| mine.contains(command)).cloned().collect();
    assert_eq!(at_once, mine);
    assert_eq!(commands.len(), 200, "each once");
    group.shutdown().await.unwrap();
    let late = group.propose_at_once(b"late".to_vec()).await;
    assert!(matches!(late, Err(GroupError::Stopped)));
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
    assert_eq!(commands, numbers(0..500));
    group.shutdown().await.unwrap();
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
    small.retention = Retention { snapshot_every_entries: 50, keep_entries: 10, ..Retention::default() };
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
    assert_eq!(journal.commands(), numbers(0..200));
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_large_entries_are_purged_too_and_counted_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(1);
    small.retention.max_bytes = 4 << 20;
    let max = small.retention.max_bytes;
    let group = Group::open(dir.path(), small.clone(), Journal::default()).await.unwrap();
    group.initialize_single().await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    for n in 0..24_u8 {
        group.propose(vec![n; 512 << 10]).await.unwrap();
    }
    until("the log is purged", || group.core().log_bytes.total() <= max).await;
    assert!(group.metrics().purged.is_some() && group.metrics().snapshot >= group.metrics().purged);
    let kept = group.core().log_bytes.total();
    assert!(kept > 0);
    group.shutdown().await.unwrap();
    drop(group);

    let journal = Journal::default();
    let group = Group::open(dir.path(), small, journal.clone()).await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(journal.commands().len(), 24);
    // With what an election adds.
    let counted = group.core().log_bytes.total();
    assert!((kept / 2..=max).contains(&counted), "{counted} of {kept}");
    group.shutdown().await.unwrap();
}

/// Applies nothing until it is told to.
struct Stuck(Journal, mpsc::Receiver<()>, bool);

// The receiver is only used by `apply`, which has `&mut self`.
struct StuckMachine(std::sync::Mutex<Stuck>);

impl Machine for StuckMachine {
    fn last_applied(&self) -> std::io::Result<Option<AppliedState>> {
        self.0.lock().unwrap().0.last_applied()
    }
    fn apply(&mut self, batch: Vec<Entry>) -> std::io::Result<Vec<Vec<u8>>> {
        let stuck = self.0.get_mut().unwrap();
        if !stuck.2 && batch.iter().any(|entry| entry.payload.is_some()) {
            stuck.1.recv().unwrap();
            stuck.2 = true;
        }
        stuck.0.apply(batch)
    }
    fn snapshot(&self) -> std::io::Result<SnapshotWriter> {
        self.0.lock().unwrap().0.snapshot()
    }
    fn install(&mut self, applied: AppliedState, data: &mut dyn std::io::Read) -> std::io::Result<()> {
        self.0.get_mut().unwrap().0.install(applied, data)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_group_says_that_it_is_busy_and_logs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (go_on, wait) = mpsc::channel();
    let journal = Journal::default();
    let machine = StuckMachine(std::sync::Mutex::new(Stuck(journal.clone(), wait, false)));
    let mut small = config(1);
    small.admission.max_proposals = 4;
    small.admission.wait_ms = 100;
    let group = Group::open(dir.path(), small, machine).await.unwrap();
    group.initialize_single().await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    let taken: Vec<_> = (0..4_u32)
        .map(|n| {
            let group = group.clone();
            tokio::spawn(async move { group.propose(n.to_be_bytes().to_vec()).await })
        })
        .collect();
    until("four are in the log", || group.metrics().committed.is_some_and(|c| c >= 5)).await;
    let refused = group.propose(b"fifth".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), "PV-RAFT-BUSY", "{refused}");
    assert!(refused.not_logged());
    go_on.send(()).unwrap();
    for task in taken {
        task.await.unwrap().unwrap();
    }
    group.propose(4_u32.to_be_bytes().to_vec()).await.unwrap();
    let mut commands = journal.commands();
    commands.sort_unstable();
    assert_eq!(commands, numbers(0..5), "the refused one is not there");
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_a_command_is_taken_until_it_ends_even_if_its_caller_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let (go_on, wait) = mpsc::channel();
    let journal = Journal::default();
    let machine = StuckMachine(std::sync::Mutex::new(Stuck(journal.clone(), wait, false)));
    let mut small = config(1);
    small.admission.max_proposals = 2;
    small.admission.wait_ms = 100;
    let group = Group::open(dir.path(), small, machine).await.unwrap();
    group.initialize_single().await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    let callers: Vec<_> = (0..2_u32)
        .map(|n| {
            let group = group.clone();
            tokio::spawn(async move {
                let command = n.to_be_bytes().to_vec();
                if n == 0 { group.propose(command).await } else { group.propose_at_once(command).await }
            })
        })
        .collect();
    until("two are in the log", || group.metrics().committed.is_some_and(|c| c >= 3)).await;
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    let refused = group.propose(b"third".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), "PV-RAFT-BUSY", "{refused}");
    go_on.send(()).unwrap();
    until("they took effect", || journal.commands().len() == 2).await;
    group.propose(2_u32.to_be_bytes().to_vec()).await.unwrap();
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_not_seen_in_time_is_of_unknown_fate() {
    let dir = tempfile::tempdir().unwrap();
    let (go_on, wait) = mpsc::channel();
    let journal = Journal::default();
    let machine = StuckMachine(std::sync::Mutex::new(Stuck(journal.clone(), wait, false)));
    let mut hasty = config(1);
    hasty.forwarding.commit_wait_ms = 200;
    let group = Group::open(dir.path(), hasty, machine).await.unwrap();
    group.initialize_single().await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    let error = group.propose(b"slow".to_vec()).await.unwrap_err();
    assert!(matches!(error, GroupError::OutcomeUnknown), "{error}");
    assert!(!error.not_logged());
    go_on.send(()).unwrap();
    until("it took effect after all, once", || journal.commands() == [b"slow".to_vec()]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(journal.commands().len(), 1);
    group.shutdown().await.unwrap();
}
