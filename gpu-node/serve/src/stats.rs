//! What the node counts, for those who watch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`Waits`], in milliseconds; what is beyond is in one more bucket.
pub const WAIT_BOUNDS_MS: [u64; 13] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];
const BUCKETS: usize = WAIT_BOUNDS_MS.len() + 1;

/// Why a request was refused that another time, or another node, could have served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFor {
    /// As many as may wait did, in all or of its tenant.
    NoPlace,
    /// It could not begin in time.
    Overdue,
    /// It can never fit into the memory of the device.
    TooLarge,
    /// Its model could not be read.
    NotLoaded,
    /// The device was in exclusive use.
    Exclusive,
}

impl RefusedFor {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::NoPlace, Self::Overdue, Self::TooLarge, Self::NotLoaded, Self::Exclusive];

    /// The reason as the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPlace => "no_place",
            Self::Overdue => "overdue",
            Self::TooLarge => "too_large",
            Self::NotLoaded => "not_loaded",
            Self::Exclusive => "exclusive",
        }
    }
}

/// How long requests waited, from their arrival until they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Requests by bucket of [`WAIT_BOUNDS_MS`], and those that waited longer.
    pub counts: [u64; BUCKETS],
    /// All waits together, in microseconds.
    pub sum_micros: u64,
}

/// What a node has counted since it started, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Weights loaded.
    pub loads: u64,
    /// Of these, weights that had been loaded before.
    pub reloads: u64,
    /// Time in which weights were loaded, in microseconds.
    pub loading_micros: u64,
    /// Weights given up for others.
    pub evictions: u64,
    /// Requests refused, in the order of [`RefusedFor::ALL`].
    pub refused: [u64; RefusedFor::ALL.len()],
    /// Waits of the requests that began.
    pub waits: Waits,
    /// Requests that wait now.
    pub waiting: u64,
    /// Requests that run now.
    pub running: u64,
}

/// The counters; the thread of the device and callers write, anyone may read.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    loads: AtomicU64,
    reloads: AtomicU64,
    loading_micros: AtomicU64,
    evictions: AtomicU64,
    refused: [AtomicU64; RefusedFor::ALL.len()],
    waits: [AtomicU64; BUCKETS],
    wait_micros: AtomicU64,
    waiting: AtomicU64,
    running: AtomicU64,
}

impl Stats {
    pub(crate) fn loaded(&self, took: Duration, again: bool) {
        add(&self.loads, 1);
        add(&self.reloads, u64::from(again));
        add(&self.loading_micros, micros(took));
    }

    pub(crate) fn evicted(&self) {
        add(&self.evictions, 1);
    }

    pub(crate) fn refused(&self, why: RefusedFor) {
        let counters = RefusedFor::ALL.iter().zip(&self.refused);
        counters.filter(|(reason, _)| **reason == why).for_each(|(_, counter)| add(counter, 1));
    }

    /// A request begins after this time.
    pub(crate) fn began(&self, waited: Duration) {
        let bounds = WAIT_BOUNDS_MS.into_iter().chain([u64::MAX]);
        let bucket = bounds.zip(&self.waits).find(|(bound, _)| waited <= Duration::from_millis(*bound));
        if let Some((_, counter)) = bucket {
            add(counter, 1);
        }
        add(&self.wait_micros, micros(waited));
    }

    pub(crate) fn now(&self, waiting: usize, running: usize) {
        self.waiting.store(waiting as u64, Ordering::Relaxed);
        self.running.store(running as u64, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            loads: read(&self.loads),
            reloads: read(&self.reloads),
            loading_micros: read(&self.loading_micros),
            evictions: read(&self.evictions),
            refused: std::array::from_fn(|at| self.refused.get(at).map_or(0, read)),
            waits: Waits {
                counts: std::array::from_fn(|at| self.waits.get(at).map_or(0, read)),
                sum_micros: read(&self.wait_micros),
            },
            waiting: read(&self.waiting),
            running: read(&self.running),
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_in_the_first_bucket_that_it_fits_into() {
        let stats = Stats::default();
        for ms in [0, 5, 6, 60_000, 60_001, 3_600_000] {
            stats.began(Duration::from_millis(ms));
        }
        let waits = stats.counts().waits;
        assert_eq!(waits.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(waits.sum_micros, 3_720_012_000);
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let stats = Stats::default();
        stats.refused(RefusedFor::TooLarge);
        stats.refused(RefusedFor::TooLarge);
        stats.refused(RefusedFor::NoPlace);
        assert_eq!(stats.counts().refused, [1, 0, 2, 0, 0]);
    }
}
