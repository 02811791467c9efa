//! All accounts of this node, and the exchanges that keep them supplied: a machine without IO.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use provost_types::QuotaUnit;

use super::{LeaseAnswer, LeaseExchange, Slot};

/// Accounts that a node keeps at a time.
pub const MAX_SLOTS: usize = 262_144;
/// Accounts of one quota: callers who make up conversations get in the way of nobody but those
/// under the same quota.
pub const MAX_SLOTS_PER_QUOTA: usize = 16_384;
/// Accounts of one exchange; the ledger takes as many wants, and at least as many reports.
pub(super) const MAX_EXCHANGED: usize = 256;
/// Parts of the map of accounts, so that calls of different accounts seldom meet.
const SHARDS: usize = 16;
/// All accounts are looked through this often.
const SCAN_NS: u64 = 500_000_000;

/// Accounts that want to be in the next exchange.
#[derive(Debug, Default)]
pub(super) struct Queue {
    slots: Mutex<Vec<Arc<Slot>>>,
    waker: Mutex<Option<Waker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is complete after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of an account's name that names its quota.
fn quota_of(account: &str) -> &str {
    account.split_once('#').map_or(account, |(quota, _)| quota)
}

impl Queue {
    pub(super) fn push(&self, slot: Arc<Slot>) {
        lock(&self.slots).push(slot);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }
}

/// An exchange that was begun and not answered.
#[derive(Debug)]
struct Pending {
    exchange: LeaseExchange,
    /// When it was first sent: leases are counted from here.
    sent_ns: u64,
    /// The account of each want.
    slots: Vec<Arc<Slot>>,
}

#[derive(Debug, Default)]
struct Machine {
    seq: u64,
    pending: Option<Pending>,
    scanned_ns: u64,
    is_closing: bool,
}

/// The accounts of a node.
pub struct LeaseBook {
    shards: [RwLock<HashMap<Box<str>, Arc<Slot>>>; SHARDS],
    hasher: BuildHasherDefault<DefaultHasher>,
    count: AtomicUsize,
    /// Accounts of each quota.
    counts: Mutex<HashMap<Box<str>, usize>>,
    queue: Arc<Queue>,
    machine: Mutex<Machine>,
    is_fenced: AtomicBool,
}

impl std::fmt::Debug for LeaseBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseBook").field("accounts", &self.count).finish_non_exhaustive()
    }
}

impl Default for LeaseBook {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            hasher: BuildHasherDefault::default(),
            count: AtomicUsize::new(0),
            counts: Mutex::default(),
            queue: Arc::default(),
            machine: Mutex::default(),
            is_fenced: AtomicBool::new(false),
        }
    }
}

impl LeaseBook {
    /// The account under a key; made if it is new. The first `named` bytes of the key are the
    /// account's name, the rest tells apart what counts anew under the same name. `None`: the node
    /// keeps as many as it can.
    pub(super) fn slot(&self, key: String, named: usize, unit: QuotaUnit, is_rate: bool) -> Option<Arc<Slot>> {
        let shard = self.shard(&key);
        if let Some(slot) = shard.read().unwrap_or_else(PoisonError::into_inner).get(&*key) {
            return Some(slot.clone());
        }
        let mut slots = shard.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&*key) {
            return Some(slot.clone());
        }
        let account = key.get(..named)?;
        if !self.count_in(account) {
            return None;
        }
        let slot = Arc::new(Slot::new(account, unit, is_rate, self.queue.clone()));
        slots.insert(key.into(), slot.clone());
        Some(slot)
    }

    /// Counts a new account; false: there are as many as may be.
    fn count_in(&self, account: &str) -> bool {
        let mut counts = lock(&self.counts);
        let of_quota = counts.entry(quota_of(account).into()).or_default();
        if *of_quota >= MAX_SLOTS_PER_QUOTA || self.count.load(Ordering::Relaxed) >= MAX_SLOTS {
            return false;
        }
        *of_quota += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn count_out(&self, account: &str) {
        let mut counts = lock(&self.counts);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(of_quota) = counts.get_mut(quota_of(account)) {
            *of_quota = of_quota.saturating_sub(1);
            if *of_quota == 0 {
                counts.remove(quota_of(account));
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "only the low bits choose")]
    fn shard(&self, key: &str) -> &RwLock<HashMap<Box<str>, Arc<Slot>>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Whether another process has taken this node's name: nothing is admitted any more.
    pub fn is_fenced(&self) -> bool {
        self.is_fenced.load(Ordering::Acquire)
    }

    /// Ready when an account asks for units; each asking wakes once.
    pub fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        *lock(&self.queue.waker) = Some(cx.waker().clone());
        if lock(&self.queue.slots).is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// What to send now: the last exchange again if it was not answered, else whatever there is
    /// to say. Call it when an account asks, and a few times a second.
    pub fn next(&self, now_ns: u64) -> Option<LeaseExchange> {
        let mut machine = lock(&self.machine);
        if let Some(pending) = &machine.pending {
            return Some(pending.exchange.clone());
        }
        if self.is_fenced() {
            // Still marked, so that nothing queues any more.
            lock(&self.queue.slots).clear();
            return None;
        }
        let mut asking = self.asking(&mut machine, now_ns);
        let later = asking.split_off(asking.len().min(MAX_EXCHANGED));
        let mut exchange = LeaseExchange { seq: machine.seq + 1, ..LeaseExchange::default() };
        let mut slots = Vec::new();
        for slot in asking {
            let wants = exchange.wants.len();
            // First, so that it is asked again about what happens from now on.
            slot.dequeue();
            slot.compose(now_ns, machine.is_closing, &mut exchange);
            if exchange.wants.len() > wants {
                slots.push(slot);
            }
        }
        later.into_iter().for_each(|slot| self.queue.push(slot));
        if exchange.reports.is_empty() && exchange.wants.is_empty() {
            return None;
        }
        machine.seq += 1;
        machine.pending = Some(Pending { exchange: exchange.clone(), sent_ns: now_ns, slots });
        Some(exchange)
    }

    /// Those in the queue, and now and then those that have something to say unasked. All of them
    /// are marked as queued, so that none comes twice.
    fn asking(&self, machine: &mut Machine, now_ns: u64) -> Vec<Arc<Slot>> {
        let mut asking = std::mem::take(&mut *lock(&self.queue.slots));
        let is_due = now_ns.saturating_sub(machine.scanned_ns) >= SCAN_NS;
        if !is_due && !machine.is_closing {
            return asking;
        }
        machine.scanned_ns = now_ns;
        for shard in &self.shards {
            let mut slots = shard.write().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| {
                let keeps = Arc::strong_count(slot) > 1 || !slot.is_forgettable();
                if !keeps {
                    self.count_out(slot.account());
                }
                keeps
            });
            let due = slots.values().filter(|slot| slot.is_due(now_ns, machine.is_closing));
            asking.extend(due.filter(|slot| slot.enqueue()).cloned());
        }
        asking
    }

    /// Takes in the answer to the exchange with that number; a late answer to another is dropped.
    pub fn answered(&self, seq: u64, answer: &LeaseAnswer, now_ns: u64) {
        let mut machine = lock(&self.machine);
        let Some(pending) = machine.pending.take_if(|p| p.exchange.seq == seq) else { return };
        if answer.fenced {
            self.is_fenced.store(true, Ordering::Release);
            machine.is_closing = true;
            for shard in &self.shards {
                for slot in shard.read().unwrap_or_else(PoisonError::into_inner).values() {
                    slot.stop();
                }
            }
            return;
        }
        for ((slot, want), grant) in pending.slots.iter().zip(&pending.exchange.wants).zip(&answer.grants) {
            if grant.account == want.account {
                slot.granted(want, grant, pending.sent_ns, now_ns);
            }
        }
    }

    /// The limits of these quotas, by `TENANT/QUOTA`, are others now. What was leased under those before goes back, also
    /// what is on its way, and what the ledger did not have is asked for again.
    pub fn recall(&self, limits: &HashMap<&str, u64>, now_ns: u64) {
        for shard in &self.shards {
            for slot in shard.read().unwrap_or_else(PoisonError::into_inner).values() {
                if let Some(limit) = limits.get(quota_of(slot.account())) {
                    slot.recall(*limit, now_ns);
                }
            }
        }
    }

    /// The node ends: from now on nothing is taken, and [`LeaseBook::next`] gives back what is
    /// left, until it gives nothing.
    pub fn close(&self) {
        lock(&self.machine).is_closing = true;
    }
}
