//! Stores the state a moment after it was applied.
//!
//! The Raft log is durable, so the stored state may be older: what came after it is applied again at
//! the next start. A thread writes at once what changes after a pause, and every [`PAUSE`] what changed since its
//! last write, as it is then: what changed several times is written once, and history that was compacted
//! and records that were carried meanwhile are not written at all. Parts of packages, which are large, wait for
//! [`PART_PAUSE`] only.
//! Invariants: each write is one atomic batch of a state and the log position that it belongs to; at
//! the end what waits is written. A failed write ends the process at the next entry: nobody knows then
//! what is on disk.

use std::{
    io, mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use provost_control_raft::AppliedState;
use provost_control_state::{PartKey, State};

use crate::store::{Dirty, Next, StateStore};

/// Between two writes. What a start has to apply again is no more than what a second brings, of which the log keeps
/// several times as much.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two writes if parts of packages wait: they are in memory until then.
const PART_PAUSE: Duration = Duration::from_millis(100);

/// A state that is not stored yet.
struct Pending {
    state: State,
    dirty: Dirty,
    applied: AppliedState,
}

#[derive(Default)]
struct Slot {
    pending: Option<Pending>,
    failed: Option<String>,
    ends: bool,
}

impl Slot {
    /// Whether what waits is large.
    fn hurries(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.dirty.parts.is_empty())
    }
}

struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
    /// Held from taking what waits until it is written: nothing older is ever written after it.
    store: Mutex<StateStore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store, and the thread that writes to it.
pub(crate) struct WriteBehind {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBehind {
    pub(crate) fn start(store: StateStore) -> io::Result<Self> {
        let shared = Arc::new(Shared { slot: Mutex::default(), changed: Condvar::new(), store: Mutex::new(store) });
        let writing = shared.clone();
        let thread = thread::Builder::new().name("control-state".to_owned()).spawn(move || run(&writing))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has the state after some entries written soon.
    pub(crate) fn put(&self, state: State, dirty: Dirty, applied: AppliedState) -> io::Result<()> {
        let mut slot = lock(&self.shared.slot);
        if let Some(why) = &slot.failed {
            return Err(io::Error::other(why.clone()));
        }
        match &mut slot.pending {
            Some(pending) => {
                pending.dirty.merge(dirty);
                (pending.state, pending.applied) = (state, applied);
                if slot.hurries() {
                    self.shared.changed.notify_one();
                }
            }
            None => {
                slot.pending = Some(Pending { state, dirty, applied });
                self.shared.changed.notify_one();
            }
        }
        Ok(())
    }

    /// Where the packages of a state are put that replaces this one.
    pub(crate) fn next(&self) -> io::Result<Next> {
        lock(&self.shared.store).next()
    }

    /// Stores another state in place of everything, before this returns.
    pub(crate) fn replace(&self, next: Next, state: &State, applied: &AppliedState) -> io::Result<()> {
        let mut store = lock(&self.shared.store);
        lock(&self.shared.slot).pending = None;
        store.replace(next, state, applied)
    }

    /// Gives parts of packages to readers.
    pub(crate) fn parts(&self) -> PackageParts {
        PackageParts { shared: Arc::downgrade(&self.shared), readers: lock(&self.shared.store).readers().clone() }
    }

    /// Where the stored state belongs in the log.
    pub(crate) fn applied(&self) -> io::Result<Option<AppliedState>> {
        lock(&self.shared.store).applied()
    }
}

/// The parts of packages. Holds no file open: there is nothing to read once the store is closed.
pub(crate) struct PackageParts {
    shared: Weak<Shared>,
    readers: Arc<AtomicUsize>,
}

impl PackageParts {
    /// There are none.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { shared: Weak::new(), readers: Arc::default() }
    }

    /// A reader. Taken before the state whose packages it reads, it finds all of them.
    pub(crate) fn reader(&self) -> PartReader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        PartReader { shared: self.shared.clone(), readers: self.readers.clone() }
    }
}

/// Reads parts of packages; as long as it is there none is removed.
pub(crate) struct PartReader {
    shared: Weak<Shared>,
    readers: Arc<AtomicUsize>,
}

impl PartReader {
    /// A part that a state lists. Waits for the disk.
    pub(crate) fn read(&self, key: &PartKey) -> io::Result<Vec<u8>> {
        let Some(shared) = self.shared.upgrade() else { return Err(io::Error::other("the state is closed")) };
        // Held until the part was found: it is either waiting or stored.
        let store = lock(&shared.store);
        let waiting = lock(&shared.slot).pending.as_ref().and_then(|pending| pending.dirty.parts.get(key).cloned());
        let found = match waiting {
            Some(content) => Some(content),
            None => store.part(key)?,
        };
        found.ok_or_else(|| io::Error::other(format!("part {} of {} is not stored", key.index, key.package)))
    }
}

impl Drop for PartReader {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        lock(&self.shared.slot).ends = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    loop {
        {
            let slot = lock(&shared.slot);
            let waiting = |slot: &mut Slot| slot.pending.is_none() && !slot.ends;
            drop(shared.changed.wait_while(slot, waiting).unwrap_or_else(PoisonError::into_inner));
        }
        if let Err(error) = write(shared) {
            tracing::error!(code = "PV-CTL-STORAGE", %error, "the state cannot be stored");
            lock(&shared.slot).failed = Some(error.to_string());
            return;
        }
        let slot = pause(shared, lock(&shared.slot), PART_PAUSE, |slot| !slot.ends);
        let slot = pause(shared, slot, PAUSE.saturating_sub(PART_PAUSE), |slot| !slot.ends && !slot.hurries());
        if slot.ends && slot.pending.is_none() {
            return;
        }
    }
}

/// Waits for a time, and no longer than `waits` holds.
fn pause<'a>(
    shared: &'a Shared,
    slot: MutexGuard<'a, Slot>,
    time: Duration,
    waits: impl Fn(&Slot) -> bool,
) -> MutexGuard<'a, Slot> {
    let waited = shared.changed.wait_timeout_while(slot, time, |slot| waits(slot));
    waited.unwrap_or_else(PoisonError::into_inner).0
}

fn write(shared: &Shared) -> io::Result<()> {
    let mut store = lock(&shared.store);
    let Some(pending) = mem::take(&mut lock(&shared.slot).pending) else { return Ok(()) };
    store.write(&pending.dirty, &pending.state, &pending.applied)
}
