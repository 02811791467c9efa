//! Who of the calls that compute for long goes on next: tenants take turns, and so do the calls of each.
//!
//! A tenant with a hundred such calls and one with a single one get as much of the threads. A turn is one poll: to the
//! guest's next interruption, or to where it waits for something.
//!
//! Invariants: a call is polled by one thread at a time; one that was woken has a turn to come; nothing of a call is dropped
//! while the order of turns is held, since what is dropped may wake others.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use provost_types::{BoxFuture, Name};

/// Whose a call is; `None`: nobody's.
type Whose = Option<Name>;

/// The turns of all tenants.
#[derive(Default)]
pub(crate) struct Turns {
    order: Mutex<Order>,
    /// Somebody wants a turn, or it is over.
    changed: Condvar,
}

#[derive(Default)]
struct Order {
    /// Tenants of whose calls some want a turn, each once.
    tenants: VecDeque<Whose>,
    /// The calls of theirs that do.
    calls: HashMap<Whose, VecDeque<Arc<Turn>>>,
    is_over: bool,
}

impl Order {
    fn push(&mut self, turn: Arc<Turn>) {
        let calls = self.calls.entry(turn.whose.clone()).or_default();
        if calls.is_empty() {
            self.tenants.push_back(turn.whose.clone());
        }
        calls.push_back(turn);
    }

    fn pop(&mut self) -> Option<Arc<Turn>> {
        let whose = self.tenants.pop_front()?;
        let calls = self.calls.get_mut(&whose)?;
        let next = calls.pop_front();
        if calls.is_empty() {
            self.calls.remove(&whose);
        } else {
            self.tenants.push_back(whose);
        }
        next
    }
}

impl Turns {
    /// Has some work done by the threads. It goes on until it is done or [`Turn::give_up`].
    pub(crate) fn begin(self: &Arc<Self>, whose: Whose, work: BoxFuture<'static, ()>) -> Arc<Turn> {
        let turn = Arc::new(Turn {
            turns: self.clone(),
            whose,
            work: Mutex::new(Some(work)),
            is_wanted: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
        });
        turn.wake_by_ref();
        turn
    }

    /// Does what is to be done, as one of the threads, until it is over.
    pub(crate) fn serve(&self) {
        while let Some(turn) = self.next() {
            // To drop what was given up may panic: that is no reason to lose the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| turn.take()));
        }
    }

    /// Ends the threads. What still waits is dropped.
    pub(crate) fn end(&self) {
        let mut order = self.lock();
        order.is_over = true;
        order.tenants.clear();
        let calls = std::mem::take(&mut order.calls);
        drop(order);
        self.changed.notify_all();
        drop(calls);
    }

    /// Whose turn it is; waits for it. `None`: it is over.
    fn next(&self) -> Option<Arc<Turn>> {
        let mut order = self.lock();
        while !order.is_over {
            if let Some(turn) = order.pop() {
                return Some(turn);
            }
            order = self.changed.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        // Nothing in there runs foreign code: what a panic leaves is whole.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turns of one call.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    whose: Whose,
    /// `None`: it is done, or was given up.
    work: Mutex<Option<BoxFuture<'static, ()>>>,
    /// It stands in the order.
    is_wanted: AtomicBool,
    is_given_up: AtomicBool,
}

impl Turn {
    /// Nobody waits for it any more: at its next turn it is dropped, by the thread whose turn that is.
    pub(crate) fn give_up(self: &Arc<Self>) {
        self.is_given_up.store(true, Ordering::SeqCst);
        self.wake_by_ref();
    }

    fn take(self: Arc<Self>) {
        // Before it goes on: who wakes it meanwhile wants one more.
        self.is_wanted.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.clone());
        // Another thread may be about to end a turn of it: the moment after it was woken.
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = match work.as_mut() {
            Some(_) if self.is_given_up.load(Ordering::SeqCst) => true,
            Some(going) => going.as_mut().poll(&mut Context::from_waker(&waker)).is_ready(),
            None => false,
        };
        let over = if is_over { work.take() } else { None };
        drop(work);
        drop(over);
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_wanted.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut order = self.turns.lock();
        if !order.is_over {
            order.push(self.clone());
        }
        drop(order);
        self.turns.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works for so many turns, and writes down each.
    fn work(name: &'static str, count: usize, said: &Arc<Mutex<Vec<&'static str>>>) -> BoxFuture<'static, ()> {
        let said = said.clone();
        Box::pin(async move {
            for _ in 0..count {
                said.lock().unwrap().push(name);
                // Without a runtime it wakes at once.
                tokio::task::yield_now().await;
            }
        })
    }

    fn take_all(turns: &Arc<Turns>) {
        loop {
            let next = turns.lock().pop();
            let Some(turn) = next else { return };
            turn.take();
        }
    }

    #[test]
    fn tenants_take_turns_however_many_calls_they_have() {
        let (turns, said) = (Arc::new(Turns::default()), Arc::default());
        for name in ["many", "many", "many", "many", "few", "one"] {
            turns.begin(Some(Name::new(name).unwrap()), work(name, 2, &said));
        }
        take_all(&turns);
        let said = said.lock().unwrap();
        assert_eq!(said[..6], ["many", "few", "one", "many", "few", "one"]);
        assert_eq!(said.len(), 12, "{said:?}");
    }

    #[test]
    fn who_is_given_up_or_waits_at_the_end_is_dropped() {
        struct Dropped(Arc<Mutex<Vec<&'static str>>>, &'static str);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.lock().unwrap().push(self.1);
            }
        }
        let (turns, said) = (Arc::new(Turns::default()), Arc::<Mutex<Vec<&'static str>>>::default());
        let waits = |name: &'static str| -> BoxFuture<'static, ()> {
            let held = Dropped(said.clone(), name);
            Box::pin(async move {
                let _held = held;
                std::future::pending::<()>().await;
            })
        };
        let first = turns.begin(None, waits("given up"));
        take_all(&turns);
        assert!(said.lock().unwrap().is_empty());
        first.give_up();
        take_all(&turns);
        assert_eq!(*said.lock().unwrap(), ["given up"]);
        drop(turns.begin(None, waits("left at the end")));
        turns.end();
        assert_eq!(*said.lock().unwrap(), ["given up", "left at the end"]);
        assert!(turns.next().is_none());
    }
}
