//! Stores the state a moment after it was applied.
//!
//! The Raft log is durable, so the stored state may be older: what came after it is applied again at
//! the next start. A thread takes what changed since its last write, at most every [`PAUSE`], and
//! writes the state as it is then: what changed several times is written once, and history that was
//! compacted meanwhile is not written at all.
//! Invariants: each write is one atomic batch of a state and the log position that it belongs to; at
//! the end what waits is written. A failed write ends the process at the next entry: nobody knows then
//! what is on disk.

use std::{
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use provost_control_raft::AppliedState;
use provost_control_state::State;

use crate::store::{Dirty, StateStore};

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(100);

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
            }
            None => {
                slot.pending = Some(Pending { state, dirty, applied });
                self.shared.changed.notify_one();
            }
        }
        Ok(())
    }

    /// Stores another state in place of everything, before this returns.
    pub(crate) fn replace(&self, state: &State, applied: &AppliedState) -> io::Result<()> {
        let mut store = lock(&self.shared.store);
        lock(&self.shared.slot).pending = None;
        store.replace(state, applied)
    }

    /// Where the stored state belongs in the log.
    pub(crate) fn applied(&self) -> io::Result<Option<AppliedState>> {
        lock(&self.shared.store).applied()
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
        let slot = lock(&shared.slot);
        let pause = shared.changed.wait_timeout_while(slot, PAUSE, |slot| !slot.ends);
        let (slot, _) = pause.unwrap_or_else(PoisonError::into_inner);
        if slot.ends && slot.pending.is_none() {
            return;
        }
    }
}

fn write(shared: &Shared) -> io::Result<()> {
    let mut store = lock(&shared.store);
    let Some(pending) = mem::take(&mut lock(&shared.slot).pending) else { return Ok(()) };
    store.write(&pending.dirty, &pending.state, &pending.applied)
}
