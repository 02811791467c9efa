//! Durations in buckets.

use std::sync::atomic::{AtomicU64, Ordering};

/// The buckets' upper bounds, nanoseconds; beyond the last is one more bucket. From what a refusal takes to what a
/// model takes.
pub const BOUNDS_NS: [u64; 18] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
];
const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// Counts of durations by bucket.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(super) fn add(&self, ns: u64) {
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Adds what is counted here.
    pub(super) fn read_into(&self, sum: &mut Buckets) {
        for (sum, count) in sum.counts.iter_mut().zip(&self.buckets) {
            *sum += count.load(Ordering::Relaxed);
        }
        sum.sum_ns = sum.sum_ns.wrapping_add(self.sum_ns.load(Ordering::Relaxed));
    }
}

/// What a histogram has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Durations in each bucket alone, in the order of [`BOUNDS_NS`]; the last: those beyond it.
    pub counts: [u64; BUCKETS],
    /// Of all, nanoseconds.
    pub sum_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_fits_into() {
        let histogram = Histogram::default();
        let durations = [0, 50_000, 50_001, 1_000_000, 60_000_000_000, 60_000_000_001];
        durations.into_iter().for_each(|ns| histogram.add(ns));
        let mut read = Buckets::default();
        histogram.read_into(&mut read);
        let filled: Vec<(usize, u64)> = read.counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 2), (1, 1), (4, 1), (17, 1), (18, 1)]);
        assert_eq!(read.sum_ns, durations.iter().sum::<u64>());
        assert!(BOUNDS_NS.is_sorted());
    }
}
