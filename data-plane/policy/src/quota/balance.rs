//! Units of one lease, taken and given back without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The high bits count leases, the rest are free units.
const GENERATION_SHIFT: u32 = 48;
/// The most units of one lease: what does not fit is never spent.
const MAX_FREE: u64 = (1 << GENERATION_SHIFT) - 1;
/// The low bits of a generation count recalls within its lease.
const RECALL_BITS: u32 = 4;
const MAX_RECALLS: u16 = (1 << RECALL_BITS) - 1;

/// A balance. Units that were taken from one lease never go to the next: each lease has a
/// generation, and what comes back with an old one is dropped. What was taken before a recall has an older
/// generation of the same lease: it goes back to the ledger, and is not taken again.
#[derive(Debug, Default)]
pub(super) struct Balance {
    word: AtomicU64,
    spent: AtomicU64,
    expires_ns: AtomicU64,
}

fn split(word: u64) -> (u16, u64) {
    #[allow(clippy::cast_possible_truncation, reason = "16 bits are left")]
    let generation = (word >> GENERATION_SHIFT) as u16;
    (generation, word & MAX_FREE)
}

fn join(generation: u16, free: u64) -> u64 {
    (u64::from(generation) << GENERATION_SHIFT) | free.min(MAX_FREE)
}

/// The first generation of the next lease.
fn next_lease(generation: u16) -> u16 {
    (generation | MAX_RECALLS).wrapping_add(1)
}

fn is_same_lease(a: u16, b: u16) -> bool {
    a >> RECALL_BITS == b >> RECALL_BITS
}

impl Balance {
    /// Takes units: the lease's generation and what is left; `None` if there are too few or the
    /// lease has ended.
    pub(super) fn take(&self, units: u64, now_ns: u64) -> Option<(u16, u64)> {
        if now_ns >= self.expires_ns.load(Ordering::Acquire) {
            return None;
        }
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let (generation, free) = split(word);
            let left = free.checked_sub(units)?;
            match self.word.compare_exchange_weak(word, join(generation, left), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((generation, left)),
                Err(seen) => word = seen,
            }
        }
    }

    /// Gives units back to be taken again; false: their lease is over, or they were recalled.
    pub(super) fn give_back(&self, generation: u16, units: u64) -> bool {
        self.change(|g, free| (g == generation).then(|| join(g, free.saturating_add(units)))).is_some()
    }

    /// Whether units of this generation are of the present lease.
    pub(super) fn is_of_lease(&self, generation: u16) -> bool {
        is_same_lease(split(self.word.load(Ordering::Acquire)).0, generation)
    }

    /// Notes units as used. Used under a lease that is over, they were counted as such already.
    pub(super) fn spend(&self, generation: u16, units: u64) {
        if self.is_of_lease(generation) {
            self.spent.fetch_add(units, Ordering::AcqRel);
        }
    }

    /// Takes all free units out of use, and those that are in use as they come back. The free units. After as many recalls of
    /// one lease as are counted, what is in use can be taken again.
    pub(super) fn recall(&self) -> u64 {
        let next = |g: u16| if g & MAX_RECALLS == MAX_RECALLS { g } else { g + 1 };
        self.change(|g, _| Some(join(next(g), 0))).unwrap_or(0)
    }

    /// Adds granted units.
    pub(super) fn add(&self, units: u64) {
        self.change(|g, free| Some(join(g, free.saturating_add(units))));
    }

    /// Begins another lease with so many units.
    pub(super) fn begin_lease(&self, units: u64) {
        self.spent.store(0, Ordering::Release);
        self.change(|g, _| Some(join(next_lease(g), units)));
    }

    /// Takes all free units, or a part of them, out of use.
    pub(super) fn withdraw(&self, part: impl Fn(u64) -> u64) -> u64 {
        self.change(|g, free| Some(join(g, free - part(free).min(free)))).map_or(0, |free| part(free).min(free))
    }

    /// Ends the lease: the free units; what is still in use never comes back.
    pub(super) fn end_lease(&self) -> u64 {
        self.expires_ns.store(0, Ordering::Release);
        self.change(|g, _| Some(join(next_lease(g), 0))).unwrap_or(0)
    }

    /// Units used since the last call.
    pub(super) fn take_spent(&self) -> u64 {
        self.spent.swap(0, Ordering::AcqRel)
    }

    pub(super) fn has_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire) > 0
    }

    pub(super) fn free(&self) -> u64 {
        split(self.word.load(Ordering::Acquire)).1
    }

    /// Changes with every use.
    pub(super) fn trace(&self) -> (u64, u64) {
        (self.word.load(Ordering::Acquire), self.spent.load(Ordering::Acquire))
    }

    pub(super) fn expires_ns(&self) -> u64 {
        self.expires_ns.load(Ordering::Acquire)
    }

    pub(super) fn set_expiry(&self, expires_ns: u64) {
        self.expires_ns.store(expires_ns, Ordering::Release);
    }

    /// The free units before the change.
    fn change(&self, next: impl Fn(u16, u64) -> Option<u64>) -> Option<u64> {
        let change = |word| {
            let (generation, free) = split(word);
            next(generation, free)
        };
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).ok().map(|word| split(word).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_go_back_only_to_their_own_lease() {
        let balance = Balance::default();
        assert_eq!(balance.take(1, 0), None, "no lease yet");
        balance.begin_lease(10);
        balance.set_expiry(100);
        let (first, left) = balance.take(4, 99).unwrap();
        assert_eq!(left, 6);
        assert_eq!(balance.take(1, 100), None, "the lease has ended");
        assert_eq!(balance.take(7, 99), None, "too few");
        balance.give_back(first, 1);
        assert_eq!(balance.free(), 7);
        balance.begin_lease(5);
        balance.give_back(first, 3);
        balance.spend(first, 3);
        assert_eq!((balance.free(), balance.take_spent()), (5, 0), "the old lease is over");
        assert_eq!(balance.withdraw(|free| free / 2), 2);
        assert_eq!((balance.free(), balance.end_lease(), balance.free()), (3, 3, 0));
    }

    #[test]
    fn what_is_recalled_cannot_be_taken_again_and_still_counts() {
        let balance = Balance::default();
        balance.begin_lease(10);
        balance.set_expiry(100);
        let (generation, _) = balance.take(4, 0).unwrap();
        assert_eq!((balance.recall(), balance.take(1, 0)), (6, None));
        assert!(!balance.give_back(generation, 1) && balance.is_of_lease(generation));
        balance.spend(generation, 3);
        assert_eq!((balance.free(), balance.take_spent()), (0, 3));
        balance.add(2);
        let (later, _) = balance.take(1, 0).unwrap();
        assert!(balance.give_back(later, 1));
        // However often, it stays the same lease.
        for _ in 0..100 {
            balance.recall();
        }
        assert!(balance.is_of_lease(generation));
        balance.begin_lease(1);
        assert!(!balance.is_of_lease(generation) && !balance.is_of_lease(later));
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let balance = Balance::default();
        balance.begin_lease(1_000);
        balance.set_expiry(1);
        let taken: u64 = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        let mut kept = 0;
                        for i in 0..2_000 {
                            if let Some((generation, _)) = balance.take(1, 0) {
                                if i % 3 == 0 {
                                    balance.give_back(generation, 1);
                                } else {
                                    kept += 1;
                                }
                            }
                        }
                        kept
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000 - balance.free());
    }
}
