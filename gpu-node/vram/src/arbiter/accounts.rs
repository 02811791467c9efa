//! The books against the device: measured memory, and allocations that fail all the same.

use super::Arbiter;
use crate::eviction::{Candidate, cheapest_set};
use crate::{Drift, Recovery, WeightsKey};

/// The books may differ from the device by one part in this many before it is alarming.
const ALARM_PART: u64 = 100;

impl Arbiter {
    /// Compares the books with what the device says is free, of `capacity_bytes`. From then on
    /// no more is given away than the lesser of the two, less the headroom. What is missing comes
    /// back with a later measurement that finds it.
    pub fn measure(&mut self, now: u64, measured_free_bytes: u64) -> Drift {
        self.advance(now);
        let usage = self.memory.usage();
        let booked_free_bytes = self.limits.capacity_bytes.saturating_sub(usage.weights + usage.reserved);
        let found = booked_free_bytes.saturating_sub(measured_free_bytes);
        // Weights that are being loaded are booked and not all there yet: the measurement looks
        // better than it is, and only bad news in it is news.
        let missing_bytes = match self.loading {
            Some(_) => found.max(self.missing),
            None => found,
        };
        self.missing = missing_bytes;
        self.memory.withhold(missing_bytes);
        let alarming = booked_free_bytes.abs_diff(measured_free_bytes) > self.limits.capacity_bytes / ALARM_PART;
        let alarm = alarming && (self.loading.is_none() || found > 0);
        Drift { booked_free_bytes, measured_free_bytes, missing_bytes, alarm }
    }

    /// An allocation for this model failed although the books had room. The least valuable idle
    /// weights go and it is tried once more; the second failure in a row is final.
    pub fn out_of_memory(&mut self, now: u64, key: WeightsKey) -> Recovery {
        self.advance(now);
        let mut ready = self.ready().into_iter();
        let victim = ready.find(|ready| ready.refs == 0 && ready.key != key && !self.is_pinned(ready.key));
        let (Some(model), Some(victim)) = (self.models.get_mut(key), victim) else {
            return Recovery::Refuse;
        };
        if model.retried {
            model.retried = false;
            return Recovery::Refuse;
        }
        model.retried = true;
        self.memory.strike(&[victim]);
        self.drop_companions(victim.key);
        Recovery::Retry { evict: vec![victim.key] }
    }

    /// Reports that an allocation for this model that had failed went well: the next failure is a first one.
    pub fn recovered(&mut self, key: WeightsKey) {
        if let Some(model) = self.models.get_mut(key) {
            model.retried = false;
        }
    }

    /// Gives idle weights up when something else has taken more than half of the headroom. Less is
    /// what temporaries take, and no reason to lose a model.
    pub(super) fn shed(&mut self) {
        if self.memory.overdraft() <= self.limits.headroom_bytes / 2 {
            return;
        }
        self.shed_caches();
        self.shed_adapters();
        let over = self.memory.overdraft();
        if over == 0 {
            return;
        }
        let is_idle = |ready: &Candidate| ready.refs == 0 && !self.is_pinned(ready.key);
        let idle: Vec<_> = self.ready().into_iter().filter(is_idle).collect();
        let victims = cheapest_set(idle.clone(), over).unwrap_or(idle);
        self.evict(&victims);
    }
}
