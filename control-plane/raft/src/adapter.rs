//! Puts a [`Machine`] behind openraft's state-machine traits.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};

use crate::{
    AppliedState, Entry, Machine, SnapshotWriter, codec,
    log_store::{Open, fatal},
    raft_types::{LogId, Membership, Snapshot, SnapshotMeta, Types},
    snapshot_file::{SnapshotDir, SnapshotFile},
};

/// Entries handed to the machine at once.
const MAX_APPLY_BATCH: usize = 1_024;

type SharedMachine = Arc<Mutex<Box<dyn Machine>>>;

/// The state machine as openraft drives it.
pub(crate) struct MachineAdapter {
    machine: SharedMachine,
    snapshots: SnapshotDir,
    applied: Option<LogId>,
    membership: Membership,
    /// The membership as it is stored with every entry.
    stored_membership: Vec<u8>,
    /// Last: dropping it tells that the machine is gone.
    _open: Open,
}

impl MachineAdapter {
    pub(crate) fn new(machine: Box<dyn Machine>, snapshots: SnapshotDir, open: Open) -> io::Result<Self> {
        let (applied, membership) = match machine.last_applied()? {
            Some(state) => codec::decode(state.as_bytes())?,
            None => (None, Membership::default()),
        };
        let machine = Arc::new(Mutex::new(machine));
        let stored_membership = codec::encode_part(&membership)?;
        Ok(Self { machine, snapshots, applied, membership, stored_membership, _open: open })
    }

    fn set_membership(&mut self, membership: Membership) -> io::Result<()> {
        self.stored_membership = codec::encode_part(&membership)?;
        self.membership = membership;
        Ok(())
    }

    /// The log id and the membership, as a pair: the second is encoded once, and not per entry.
    fn applied_bytes(&self) -> io::Result<AppliedState> {
        let mut bytes = codec::encode_about(&self.applied, codec::SMALL + self.stored_membership.len())?;
        bytes.extend_from_slice(&self.stored_membership);
        Ok(AppliedState::from_bytes(bytes))
    }

    async fn apply_batch(
        &mut self,
        batch: Vec<Entry>,
        responders: &mut Vec<Option<ApplyResponder<Types>>>,
    ) -> io::Result<()> {
        let machine = self.machine.clone();
        let expected = batch.len();
        let is_quick = lock(&machine).is_quick(&batch);
        let replies = match is_quick {
            true => lock(&machine).apply(batch)?,
            false => blocking(move || lock(&machine).apply(batch)).await?,
        };
        if replies.len() != expected {
            let text = format!("the machine gave {} replies to {expected} entries", replies.len());
            return Err(io::Error::other(text));
        }
        for (responder, reply) in responders.drain(..).zip(replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

fn lock(machine: &SharedMachine) -> MutexGuard<'_, Box<dyn Machine>> {
    // A panic in the machine ends the process: through `blocking`, or as the end of Raft's task.
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    // A thread's progress would not follow the simulated clock.
    #[cfg(test)]
    if crate::sim::is_simulated() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => fatal("the state machine", &e),
        // The runtime is ending and this task with it. An error would be taken for a failed disk.
        Err(_) => std::future::pending().await,
    }
}

impl RaftStateMachine<Types> for MachineAdapter {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        let mut responders = Vec::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.applied = Some(entry.log_id);
            let payload = match entry.payload {
                EntryPayload::Normal(command) => Some(command.0),
                EntryPayload::Blank => None,
                EntryPayload::Membership(membership) => {
                    self.set_membership(Membership::new(self.applied, membership))?;
                    None
                }
            };
            let index = entry.log_id.index;
            batch.push(Entry { index, applied: self.applied_bytes()?, payload });
            responders.push(responder);
            if batch.len() >= MAX_APPLY_BATCH {
                self.apply_batch(std::mem::take(&mut batch), &mut responders).await?;
            }
        }
        if !batch.is_empty() {
            self.apply_batch(batch, &mut responders).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let machine = self.machine.clone();
        let view = blocking(move || lock(&machine).snapshot()).await;
        Builder { view: Mutex::new(Some(view)), meta: self.snapshot_meta(), snapshots: self.snapshots.clone() }
    }

    /// The file becomes current before the machine takes it: after a crash in between, openraft
    /// finds a snapshot ahead of the machine and installs it again.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotFile) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.set_membership(meta.last_membership.clone())?;
        let applied = self.applied_bytes()?;
        let (machine, snapshots) = (self.machine.clone(), self.snapshots.clone());
        blocking(move || {
            data.verify()?;
            let (_, current) = snapshots.adopt(&data.path)?;
            lock(&machine).install(applied, &mut io::BufReader::new(current.data()))
        })
        .await?;
        let last = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        tracing::info!("a snapshot replaced the state up to entry {last}");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.snapshots.current()?;
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Writes the snapshot that was taken when it was made.
pub(crate) struct Builder {
    /// Taken once; the lock only makes the builder shareable.
    view: Mutex<Option<io::Result<SnapshotWriter>>>,
    meta: SnapshotMeta,
    snapshots: SnapshotDir,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let view = self.view.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let view = view.unwrap_or_else(|| Err(io::Error::other("a snapshot builder builds once")))?;
        let (meta, snapshots) = (self.meta.clone(), self.snapshots.clone());
        blocking(move || {
            let snapshot = snapshots.write(&meta, |out| view(out))?;
            Ok(Snapshot { meta, snapshot })
        })
        .await
    }
}
