//! One account as this node holds it.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use provost_types::QuotaUnit;

use super::{
    balance::Balance,
    book::Queue,
    held::{Held, Taken},
    share::{Late, Share},
};

/// Calls that wait for one account at a time.
const MAX_WAITING: usize = 4_096;

/// One account: its lease's balance or its share of a rate, and what is known of its limit.
pub struct Slot {
    pub(super) account: Box<str>,
    unit: QuotaUnit,
    is_rate: bool,
    balance: Balance,
    share: Share,
    /// Below this more is asked for ahead; 0: never. For a rate: the time from which on a larger
    /// share may be asked for.
    pub(super) low: AtomicU64,
    /// Units that waiting calls need, and how many wait.
    pub(super) need: AtomicU64,
    waiting: AtomicUsize,
    /// Rates: calls since the last exchange.
    pub(super) attempts: AtomicU64,
    /// The ledger had no more than this node has: until then nobody asks again.
    pub(super) empty_until_ns: AtomicU64,
    /// Grows whenever waiting calls should look again.
    version: AtomicU64,
    /// Whether it stands in the queue.
    queued: AtomicBool,
    pub(super) cold: Mutex<Cold>,
    queue: Arc<Queue>,
}

/// What is not needed to take a unit.
#[derive(Debug, Default)]
pub(super) struct Cold {
    pub(super) lease: u64,
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) window_end_ns: u64,
    /// Shares: when to renew, after the last exchange.
    pub(super) renew_ns: u64,
    /// Units that the ledger has booked to the lease.
    pub(super) booked: u64,
    /// Units of the lease that nobody can take any more and that are to be returned.
    pub(super) returning: u64,
    /// When the limit became another one: what was asked for before was granted under another.
    pub(super) recalled_ns: u64,
    /// Rates: the share as it is kept to.
    pub(super) level: u64,
    /// Rates: when the share was last made smaller.
    pub(super) lowered_ns: u64,
    /// Rates: units a second that could be used.
    pub(super) demand: u64,
    /// When the last exchange about this account was made.
    pub(super) exchanged_ns: u64,
    /// The balance when it was last seen to change, and when.
    pub(super) trace: (u64, u64),
    pub(super) used_ns: u64,
    /// Exchanges in a row that gave too little.
    pub(super) empty_streak: u32,
    wakers: Vec<Waker>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("account", &self.account).field("unit", &self.unit).finish_non_exhaustive()
    }
}

/// What is known of an account's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotFacts {
    /// The limit as the ledger said; 0: it has not answered, or knows no such count.
    pub limit: u64,
    /// Units left, as far as this node can know.
    pub remaining: u64,
    /// The window's end, nanoseconds since the Unix epoch; 0: none.
    pub window_end_ns: u64,
}

/// Why units cannot be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanting {
    /// The ledger may have more: ask and wait.
    Ask,
    /// The ledger had no more a moment ago; it is asked again after so many nanoseconds.
    Exhausted {
        /// When.
        retry_ns: u64,
    },
    /// A rate: so many nanoseconds too early.
    Early {
        /// How much.
        retry_ns: u64,
    },
    /// A rate: the call is larger than the limit.
    TooLarge,
}

impl Slot {
    pub(super) fn new(account: &str, unit: QuotaUnit, is_rate: bool, queue: Arc<Queue>) -> Self {
        Self {
            account: account.into(),
            unit,
            is_rate,
            balance: Balance::default(),
            share: Share::default(),
            low: AtomicU64::new(0),
            need: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            attempts: AtomicU64::new(0),
            empty_until_ns: AtomicU64::new(0),
            version: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            cold: Mutex::default(),
            queue,
        }
    }

    /// The account's name.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// What it counts.
    pub fn unit(&self) -> QuotaUnit {
        self.unit
    }

    /// Whether it is a share of a rate.
    pub fn is_rate(&self) -> bool {
        self.is_rate
    }

    pub(super) fn balance(&self) -> &Balance {
        &self.balance
    }

    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    pub(super) fn cold(&self) -> MutexGuard<'_, Cold> {
        // Plain data, complete after every statement.
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes units for a call. One compare-and-swap; when the balance runs low, it is asked for
    /// more in the background.
    pub fn take(self: &Arc<Self>, units: u64, now_ns: u64) -> Result<Held, Wanting> {
        if self.is_rate {
            self.attempts.fetch_add(units, Ordering::Relaxed);
            return match self.share.take(units, now_ns) {
                Ok((before, after)) => Ok(Held::new(self.clone(), Taken::Share(before, after), units)),
                Err(Late::For(retry_ns)) => {
                    // A larger share may be there for the asking.
                    if now_ns >= self.low.load(Ordering::Relaxed) {
                        self.ask();
                    }
                    Err(Wanting::Early { retry_ns })
                }
                Err(Late::TooLarge) => Err(self.too_large(units, now_ns)),
                Err(Late::Ended) => Err(self.wanting(now_ns)),
            };
        }
        match self.balance.take(units, now_ns) {
            Some((generation, left)) => {
                if left < self.low.load(Ordering::Relaxed) {
                    self.ask();
                }
                Ok(Held::new(self.clone(), Taken::Lease(generation), units))
            }
            None => Err(self.wanting(now_ns)),
        }
    }

    /// A rate: more units than the share ever gives. Up to the limit the ledger may have a larger one.
    fn too_large(self: &Arc<Self>, units: u64, now_ns: u64) -> Wanting {
        if units > self.cold().limit {
            return Wanting::TooLarge;
        }
        match self.low.load(Ordering::Relaxed).checked_sub(now_ns) {
            Some(retry_ns) if retry_ns > 0 => Wanting::Early { retry_ns },
            _ => {
                self.ask();
                Wanting::Ask
            }
        }
    }

    /// A rate: whether so many units are more than the share gives at once, and wait until it lay unused.
    pub fn is_large(&self, units: u64) -> bool {
        self.is_rate && self.share.is_large(units)
    }

    fn wanting(&self, now_ns: u64) -> Wanting {
        match self.empty_until_ns.load(Ordering::Acquire).checked_sub(now_ns) {
            Some(retry_ns) if retry_ns > 0 => Wanting::Exhausted { retry_ns },
            _ => Wanting::Ask,
        }
    }

    /// The limit is another one: what was leased under the one before goes back to the ledger, which grants anew, and
    /// what it did not have it may have now. Units that are in use go back when they come back.
    pub(super) fn recall(self: &Arc<Self>, limit: u64, now_ns: u64) {
        {
            let mut cold = self.cold();
            if !self.is_rate {
                cold.returning = cold.returning.saturating_add(self.balance.recall());
            }
            if cold.limit > 0 {
                (cold.limit, cold.remaining) = (limit, cold.remaining.min(limit));
            }
            (cold.recalled_ns, cold.empty_streak) = (now_ns, 0);
            self.empty_until_ns.store(0, Ordering::Release);
        }
        self.ask();
        self.changed();
    }

    /// Gives units back, to be taken again or to the ledger.
    pub(super) fn give_back(self: &Arc<Self>, generation: u16, units: u64) {
        if !self.balance.give_back(generation, units) {
            let mut cold = self.cold();
            // A lease begins and ends behind this lock.
            if !self.balance.is_of_lease(generation) {
                return;
            }
            cold.returning = cold.returning.saturating_add(units);
            drop(cold);
            self.ask();
        }
        self.changed();
    }

    /// Puts the account into the next exchange.
    pub(super) fn ask(self: &Arc<Self>) {
        if !self.queued.load(Ordering::Relaxed) && self.enqueue() {
            self.queue.push(self.clone());
        }
    }

    /// Whether it was not in the queue; from now on it is.
    pub(super) fn enqueue(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// From now on it can ask again.
    pub(super) fn dequeue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Announces a call that waits for units; `None`: as many wait as may.
    pub fn wait(self: &Arc<Self>, units: u64) -> Option<Waiting> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        self.need.fetch_add(units, Ordering::AcqRel);
        let version = self.version.load(Ordering::Acquire);
        self.ask();
        Some(Waiting { slot: self.clone(), units, version })
    }

    /// Tells waiting calls to look again.
    pub(super) fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > 0 {
            let wakers = std::mem::take(&mut self.cold().wakers);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether calls wait.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// What is known of the limit.
    pub fn facts(&self) -> SlotFacts {
        let cold = self.cold();
        let own = if self.is_rate { 0 } else { self.balance.free() };
        SlotFacts {
            limit: cold.limit,
            remaining: cold.remaining.saturating_add(own).min(cold.limit),
            window_end_ns: cold.window_end_ns,
        }
    }
}

/// A call that waits for units. Each time it resolves, try to take again. Dropping it ends the
/// wait.
#[derive(Debug)]
pub struct Waiting {
    slot: Arc<Slot>,
    units: u64,
    version: u64,
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let slot = self.slot.clone();
        let mut cold = slot.cold();
        let version = slot.version.load(Ordering::Acquire);
        if version != self.version {
            self.version = version;
            return Poll::Ready(());
        }
        if !cold.wakers.iter().any(|w| w.will_wake(cx.waker())) {
            cold.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.slot.need.fetch_sub(self.units, Ordering::AcqRel);
        if self.slot.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Of calls that gave up; whoever begins to wait now has not been polled yet, or is
            // polled again by the others that are woken here.
            let wakers = std::mem::take(&mut self.slot.cold().wakers);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}
