//! What the device itself says: what it has left, and that it has not what the books promise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_gpu_infer::InferError;
use provost_gpu_vram::{Recovery, WeightsKey};

use super::Scheduler;
use crate::catalogue::Entry;
use crate::usage::DeviceNow;

/// So often the device is asked at most: each time it comes to the end of what it does.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

impl Scheduler {
    /// Compares the books with the device. What is missing is not given away.
    pub(super) fn measure(&mut self) {
        if self.measured_at.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return;
        }
        self.measured_at = Some(Instant::now());
        let Some(memory) = self.device.memory() else { return };
        // Of the capacity that the node was given, what neither it nor another program has taken since it started.
        let free = self.turns.usage().capacity.saturating_sub(memory.taken).min(memory.free);
        let drift = self.turns.measure(free);
        // What requests may compute with is booked and taken as it is needed: only without them the two are to be equal.
        let is_at_rest = self.is_idle() && !self.residency.is_loading();
        let last = self.device_now.get().map_or(0, |now| now.drift);
        let drifted = match is_at_rest {
            true => signed(drift.booked_free_bytes).saturating_sub(signed(drift.measured_free_bytes)),
            false => last,
        };
        if is_at_rest && drift.alarm && drifted != last {
            tracing::warn!(
                booked_free = drift.booked_free_bytes,
                measured_free = drift.measured_free_bytes,
                "the device's memory is not what the books say"
            );
        }
        let missing = drift.missing_bytes;
        self.device_now.set(DeviceNow { total: memory.total, free: memory.free, missing, drift: drifted });
    }

    /// Gives weights up.
    pub(super) fn evict(&mut self, key: WeightsKey) {
        self.stats.evicted();
        let turns = &self.turns;
        self.residency.evict(key, |entry| turns.is_waited_for(entry));
    }

    /// Takes memory for a cache; where the device refuses, something goes for it and it is tried once more.
    pub(super) fn make_cache(&mut self, key: WeightsKey, bytes: u64) {
        let mut made = self.try_cache(key, bytes);
        if made == Err(InferError::OutOfMemory) && self.give_up_one(key) {
            made = self.try_cache(key, bytes);
        }
        match made {
            Ok(()) => self.turns.recovered(key),
            Err(_) => self.turns.cache_failed(key),
        }
    }

    /// Loads weights again for which the device had no memory, once something else has gone.
    pub(super) fn load_once_more(&mut self, key: WeightsKey, entry: Arc<Entry>) {
        if self.give_up_one(key) {
            tracing::warn!(model = entry.name, "the device has less memory left than the books: trying once more");
            self.residency.load(key, entry);
        } else {
            self.residency.fail(&entry, InferError::OutOfMemory);
            self.turns.load_failed(key);
        }
    }

    fn try_cache(&mut self, key: WeightsKey, bytes: u64) -> Result<(), InferError> {
        match self.residency.decoder(key) {
            Some(decoder) => self.arenas.make(key, decoder, bytes),
            None => Err(InferError::Failed("the weights of a cache are not in memory".to_owned())),
        }
    }

    /// Gives up what is worth least for an allocation that failed. False: there is nothing, or it failed before.
    fn give_up_one(&mut self, key: WeightsKey) -> bool {
        let Recovery::Retry { evict } = self.turns.out_of_memory(key) else { return false };
        for victim in evict {
            // The arbiter says so later; the memory is wanted now.
            self.arenas.remove(victim);
            self.evict(victim);
        }
        true
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
