//! The machine as the Raft group drives it.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use parking_lot::Mutex;
use provost_control_raft::{AppliedState, Entry, Machine, SnapshotWriter};

use super::AuditMachine;
use crate::{entry::Command, persist::Progress, state::MachineState};

/// Bytes of entries that are applied where they are: what is checked, hashed and copied into the page cache within
/// some tens of microseconds, which handing it to another thread and back takes too.
const MAX_QUICK_BYTES: usize = 64 << 10;
/// Logs that are asked whether a block of theirs would close. With more each of them is seldom written to.
const MAX_QUICK_LOGS: usize = 64;

/// The machine as the group and the handle share it. The lock is held for one batch of entries or
/// one look, never across an await.
#[derive(Clone)]
pub struct SharedMachine(pub Arc<Mutex<AuditMachine>>);

impl Machine for SharedMachine {
    fn last_applied(&self) -> io::Result<Option<AppliedState>> {
        Ok(self.0.lock().state.raft.clone().map(AppliedState::from_bytes))
    }

    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>> {
        let mut machine = self.0.lock();
        let mut replies = Vec::with_capacity(batch.len());
        for entry in &batch {
            replies.push(machine.step(entry.index, entry.payload.as_ref())?);
            // A seal persists in `finish`: by then state and `raft` are at the same entry.
            machine.state.raft = Some(entry.applied.as_bytes().to_vec());
            if machine.keys_due {
                // Of several checkpoints of a log the last one is published. The one that both keys signed is
                // never passed over: without it nothing leads from the old key to the new one.
                machine.finish()?;
            }
        }
        machine.finish()?;
        Ok(replies)
    }

    /// Few records, none of which closes a block (that is compressed): nothing of it waits for a disk. Everything
    /// else, and what would wait for somebody who looks at the machine, goes to a thread that may wait.
    fn is_quick(&self, batch: &[Entry]) -> bool {
        let (mut bytes, mut records) = (0, 0);
        for payload in batch.iter().filter_map(|entry| entry.payload.as_ref()) {
            let Some(appends) = Command::appends(payload) else { return false };
            (bytes, records) = (bytes + payload.len(), records + appends);
        }
        bytes <= MAX_QUICK_BYTES && self.0.try_lock().is_some_and(|machine| machine.has_room(records))
    }

    /// A manifest: the state, after everything it describes has been made durable here. The
    /// records stay where they are, and are not copied for each snapshot.
    fn snapshot(&self) -> io::Result<SnapshotWriter> {
        let mut machine = self.0.lock();
        machine.persist()?;
        let (applied, mut progress) = (machine.state.applied, machine.progress());
        let manifest = machine.state.encode()?;
        Ok(Box::new(move |out: &mut dyn Write| {
            wait_persisted(&mut progress, applied)?;
            out.write_all(&manifest)
        }))
    }

    /// Takes what the manifest describes from another replica, unless it is here already.
    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        data.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes)?;
        let manifest = MachineState::decode(&bytes).map_err(io::Error::other)?;
        let mut machine = self.0.lock();
        if machine.state.applied < manifest.applied {
            machine.catch_up(manifest)?;
        }
        machine.state.raft = Some(applied.as_bytes().to_vec());
        machine.persist()?;
        // After the state: a checkpoint on disk is never ahead of it.
        machine.finish()
    }
}

impl AuditMachine {
    /// Whether so many records close no block, whichever logs they are for.
    fn has_room(&self, records: usize) -> bool {
        self.logs.values().take(MAX_QUICK_LOGS).all(|files| records <= files.room())
    }
}

/// The largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// Blocks until the state at `applied` is durable.
pub(super) fn wait_persisted(progress: &mut Progress, applied: Option<u64>) -> io::Result<()> {
    loop {
        match &*progress.borrow_and_update() {
            Ok(done) if *done >= applied => return Ok(()),
            Ok(_) => {}
            Err(why) => return Err(io::Error::other(why.clone())),
        }
        // This runs on a blocking thread, outside of any runtime's workers.
        let changed = futures::executor::block_on(progress.changed());
        changed.map_err(|_| io::Error::other("the persist thread has ended"))?;
    }
}
