//! The machine as the Raft group drives it.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use provost_audit_core::LogId;
use provost_control_raft::{AppliedState, Entry, Machine, SnapshotWriter};

use super::AuditMachine;
use crate::{entry::Command, persist::Progress, state::MachineState};

/// Bytes of entries that are applied where they are: what is checked, hashed and copied into the page cache within
/// some tens of microseconds, which handing it to another thread and back takes too.
const MAX_QUICK_BYTES: usize = 64 << 10;
/// Logs that they are for: each is a write of its own, and one more where there are bodies.
const MAX_QUICK_LOGS: usize = 16;

/// How many records each log gets, and whether bodies are among them.
type Appended = BTreeMap<LogId, (usize, bool)>;

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

    /// Few records that are only added to files which are there: nothing of it is compressed, makes a file or waits for
    /// a disk. Everything else, and what would wait for somebody who looks at the machine, goes to a thread that may wait.
    fn is_quick(&self, batch: &[Entry]) -> bool {
        let payloads = || batch.iter().filter_map(|entry| entry.payload.as_ref());
        if payloads().map(Bytes::len).sum::<usize>() > MAX_QUICK_BYTES {
            return false;
        }
        let mut appended = Appended::new();
        for payload in payloads() {
            let Some(appends) = Command::appends(payload) else { return false };
            for (log, has_body) in appends {
                let (records, bodies) = appended.entry(log).or_default();
                *records += 1;
                *bodies |= has_body;
            }
        }
        appended.len() <= MAX_QUICK_LOGS && self.0.try_lock().is_some_and(|machine| machine.only_adds(&appended))
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
    /// Whether these records are only added to files that are there. A log that begins makes its files.
    fn only_adds(&self, appended: &Appended) -> bool {
        let only_adds = |(log, (records, bodies)): (&LogId, &(usize, bool))| {
            self.logs.get(log).is_some_and(|files| files.only_adds(*records, *bodies))
        };
        appended.iter().all(only_adds)
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
