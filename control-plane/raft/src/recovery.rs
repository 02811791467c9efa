//! Makes log and machine fit each other before Raft starts.
//!
//! A follower applies what a quorum committed, perhaps before its own log is on disk. After a
//! power cut the machine may then hold more than the log, or the log may end in entries that
//! another leader had replaced. What the machine applied is committed, so its state counts: it
//! becomes the snapshot, and the log continues behind it, as after a snapshot from the leader.
//! openraft alone would cut the log and keep an older snapshot, with nothing in between.

use openraft::{
    RaftLogReader, RaftSnapshotBuilder,
    storage::{RaftLogStorage, RaftStateMachine},
};

use crate::{GroupError, adapter::MachineAdapter, raft_types::Types};

/// A crash at any point leaves what the next start repairs again: the snapshot is durable before
/// the log is touched.
pub(crate) async fn reconcile<L: RaftLogStorage<Types>>(
    log: &mut L,
    machine: &mut MachineAdapter,
) -> Result<(), GroupError> {
    let (Some(applied), _) = machine.applied_state().await? else { return Ok(()) };
    if log.get_log_state().await?.last_purged_log_id >= Some(applied) {
        // The machine is at or behind the snapshot that the log begins with.
        return Ok(());
    }
    let range = applied.index..applied.index + 1;
    let entries = log.get_log_reader().await.try_get_log_entries(range).await?;
    if entries.first().is_some_and(|entry| entry.log_id == applied) {
        return Ok(());
    }
    tracing::warn!(%applied, "the state is ahead of the Raft log, as after a power cut; the log continues behind it");
    let snapshot = machine.get_current_snapshot().await?;
    if snapshot.is_none_or(|snapshot| snapshot.meta.last_log_id < Some(applied)) {
        machine.get_snapshot_builder().await.build_snapshot().await?;
    }
    // What is behind an entry that was replaced was never committed.
    log.truncate_after(Some(applied)).await?;
    log.purge(applied).await?;
    Ok(())
}
