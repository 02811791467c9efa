//! A bounded number of places, waited for fairly.
//!
//! Invariants: a place that is held is given back when it is dropped, and so is one that was given to a wait that
//! nobody waits for any more; no lock is held while something is awaited. See `lanes` for what is fair.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_types::Name;
use tokio::sync::oneshot;

use super::lanes::{Entry, Lanes, Ticket};

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// As many wait as may.
    Full,
    /// Another principal's call took its place in the queue.
    Displaced,
    /// The wait lasted too long.
    TooLong,
}

/// What ends a wait.
#[derive(Debug)]
enum Woken {
    /// It has a place.
    Placed,
    Displaced,
}

#[derive(Debug)]
struct Inner {
    lanes: Lanes<Name>,
    waiting: HashMap<Ticket, oneshot::Sender<Woken>>,
}

/// The places.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    longest_wait: Duration,
}

impl Gate {
    pub(crate) fn new(places: usize, max_queued: usize, longest_wait: Duration) -> Self {
        let inner = Inner { lanes: Lanes::new(places, max_queued), waiting: HashMap::new() };
        Self { inner: Mutex::new(inner), longest_wait }
    }

    /// How many hold a place, and how many wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.lanes.running(), inner.lanes.queued())
    }

    /// A place, if there is one now.
    pub(crate) fn enter_now(&self, principal: &Name) -> Result<Place<'_>, NoPlace> {
        let mut inner = self.inner.lock();
        if !inner.lanes.has_place() {
            return Err(NoPlace::Full);
        }
        match inner.lanes.enter(principal) {
            Entry::Run => Ok(Place(self)),
            // A free place is given at once; nobody can have taken it under the lock.
            Entry::Wait { .. } | Entry::Full => Err(NoPlace::Full),
        }
    }

    /// Waits for a place in the principal's turn.
    pub(crate) async fn enter(&self, principal: &Name, deadline: Instant) -> Result<Place<'_>, NoPlace> {
        let mut waiting = {
            let mut inner = self.inner.lock();
            match inner.lanes.enter(principal) {
                Entry::Run => return Ok(Place(self)),
                Entry::Full => return Err(NoPlace::Full),
                Entry::Wait { ticket, evicted } => {
                    if let Some(evicted) = evicted.and_then(|t| inner.waiting.remove(&t)) {
                        // Whoever waited may have given up meanwhile.
                        let _ = evicted.send(Woken::Displaced);
                    }
                    let (wake, woken) = oneshot::channel();
                    inner.waiting.insert(ticket, wake);
                    Waiting { gate: self, principal, ticket, woken, is_over: false }
                }
            }
        };
        let until = deadline.min(Instant::now() + self.longest_wait);
        match tokio::time::timeout_at(until.into(), &mut waiting.woken).await {
            Ok(Ok(Woken::Placed)) => {
                waiting.is_over = true;
                Ok(Place(self))
            }
            Ok(Ok(Woken::Displaced) | Err(_)) => {
                waiting.is_over = true;
                Err(NoPlace::Displaced)
            }
            Err(_) => Err(NoPlace::TooLong),
        }
    }

    fn leave(&self) {
        let mut inner = self.inner.lock();
        Self::leave_locked(&mut inner);
    }

    fn leave_locked(inner: &mut Inner) {
        if let Some(wake) = inner.lanes.leave().and_then(|ticket| inner.waiting.remove(&ticket)) {
            // Under the lock: a wait that ends now finds its place and gives it back.
            let _ = wake.send(Woken::Placed);
        }
    }
}

/// A place; dropping it gives it to the next.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Gate);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A wait; dropping it gives up.
struct Waiting<'a> {
    gate: &'a Gate,
    principal: &'a Name,
    ticket: Ticket,
    woken: oneshot::Receiver<Woken>,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut inner = self.gate.inner.lock();
        inner.waiting.remove(&self.ticket);
        if !inner.lanes.give_up(self.principal, self.ticket) && matches!(self.woken.try_recv(), Ok(Woken::Placed)) {
            Gate::leave_locked(&mut inner);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_wait_that_ends_leaves_its_place_to_others() {
        let gate = Gate::new(1, 2, Duration::from_secs(60));
        let (ann, bob) = (name("ann"), name("bob"));
        let place = gate.enter(&ann, later()).await.unwrap();
        assert_eq!(gate.enter(&bob, Instant::now()).await.unwrap_err(), NoPlace::TooLong);
        // Given a place, and dropped before it learnt of it.
        let mut waiting = Box::pin(gate.enter(&bob, later()));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(gate.load(), (1, 1));
        drop(place);
        assert_eq!(gate.load(), (1, 0));
        drop(waiting);
        assert_eq!(gate.load(), (0, 0));
        let _place = gate.enter(&ann, later()).await.unwrap();
        let mut waits: Vec<_> = (0..2).map(|_| Box::pin(gate.enter(&ann, later()))).collect();
        for wait in &mut waits {
            assert!(futures::poll!(wait).is_pending());
        }
        assert_eq!(gate.enter(&ann, later()).await.unwrap_err(), NoPlace::Full);
        let mut bobs = Box::pin(gate.enter(&bob, later()));
        assert!(futures::poll!(&mut bobs).is_pending());
        assert_eq!(waits.pop().unwrap().await.unwrap_err(), NoPlace::Displaced);
        drop((waits, bobs));
        assert_eq!(gate.load(), (1, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn never_more_run_than_there_are_places() {
        const PLACES: usize = 3;
        let gate = Arc::new(Gate::new(PLACES, 1_000, Duration::from_secs(60)));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..200_u32).map(|i| {
            let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                let principal = name(["ann", "bob", "cyd"][i as usize % 3]);
                // Some give up at any time.
                let patience = if i % 4 == 0 { Duration::from_micros(u64::from(i)) } else { Duration::from_secs(60) };
                if let Ok(_place) = gate.enter(&principal, Instant::now() + patience).await {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                }
            })
        });
        futures::future::join_all(tasks).await;
        assert!((1..=PLACES).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(gate.load(), (0, 0));
    }
}
