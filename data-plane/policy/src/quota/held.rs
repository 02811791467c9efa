//! Units taken for one call, from reservation to settlement.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use provost_types::QuotaUnit;

use super::Slot;

/// What a call really used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Model tokens, in and out.
    pub tokens: u64,
    /// Money, in millionths.
    pub cost_micro: u64,
}

/// Where taken units stand, to find the way back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taken {
    /// From a balance's lease of this generation.
    Lease(u16),
    /// From a share: its word before and after.
    Share(u64, u64),
}

const RESERVED: u8 = 0;
const BEGUN: u8 = 1;
const SETTLED: u8 = 2;

/// Units of one account held for a call. Dropped before the call begins, they go back. Dropped
/// after it began without being settled, they count as used: the call may have run.
#[derive(Debug)]
pub struct Held {
    slot: Arc<Slot>,
    taken: Taken,
    units: u64,
    state: AtomicU8,
}

impl Held {
    pub(super) fn new(slot: Arc<Slot>, taken: Taken, units: u64) -> Self {
        Self { slot, taken, units, state: AtomicU8::new(RESERVED) }
    }

    /// The account that the units are of.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// The call begins to run.
    pub fn begin(&self) {
        let _ = self.state.compare_exchange(RESERVED, BEGUN, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Charges what the call used, at most what is held, and gives back the rest.
    pub fn settle(&self, actual: &Actual) {
        let used = match self.slot.unit() {
            QuotaUnit::Calls => self.units,
            QuotaUnit::Tokens => actual.tokens,
            QuotaUnit::CostMicro => actual.cost_micro,
            QuotaUnit::Concurrent => 0,
        };
        self.finish(used);
    }

    /// Once: later calls do nothing.
    fn finish(&self, used: u64) {
        if self.state.swap(SETTLED, Ordering::AcqRel) == SETTLED {
            return;
        }
        let used = used.min(self.units);
        match self.taken {
            Taken::Lease(generation) => {
                if used > 0 {
                    self.slot.balance().spend(generation, used);
                }
                if used < self.units {
                    self.slot.give_back(generation, self.units - used);
                }
            }
            // Later takes stand on this one, so only the whole of it can be undone.
            Taken::Share(before, after) => {
                if used == 0 {
                    self.slot.share().give_back(before, after);
                }
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let begun = *self.state.get_mut() == BEGUN;
        let comes_back = self.slot.unit() == QuotaUnit::Concurrent;
        self.finish(if begun && !comes_back { u64::MAX } else { 0 });
    }
}
