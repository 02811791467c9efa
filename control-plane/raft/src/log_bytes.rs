//! How many bytes the log has, and up to where it may go when these are too many.
//!
//! Entries are counted in runs: which run an entry is in is enough to purge by. The count is never less than what there is,
//! and more by a run at most where a log was truncated or purged in the middle of one.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A run is closed when it has so many bytes.
const RUN_BYTES: u64 = 256 << 10;

/// The bytes of one log.
#[derive(Default)]
pub(crate) struct LogBytes(Mutex<Runs>);

#[derive(Default)]
struct Runs {
    runs: VecDeque<Run>,
    total: u64,
}

/// Entries in a row.
struct Run {
    first: u64,
    last: u64,
    bytes: u64,
}

impl LogBytes {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an entry at the end of the log.
    pub(crate) fn push(&self, index: u64, bytes: usize) {
        let bytes = bytes as u64;
        let mut runs = self.runs();
        runs.total = runs.total.saturating_add(bytes);
        match runs.runs.back_mut().filter(|run| run.bytes < RUN_BYTES) {
            Some(run) => {
                run.last = run.last.max(index);
                run.bytes = run.bytes.saturating_add(bytes);
            }
            None => runs.runs.push_back(Run { first: index, last: index, bytes }),
        }
    }

    /// Forgets `from` and everything after it.
    pub(crate) fn truncate(&self, from: u64) {
        let mut runs = self.runs();
        while let Some(run) = runs.runs.pop_back_if(|run| run.first >= from) {
            runs.total = runs.total.saturating_sub(run.bytes);
        }
        if let Some(run) = runs.runs.back_mut().filter(|run| run.last >= from) {
            run.last = from.saturating_sub(1);
        }
    }

    /// Forgets everything up to `last`.
    pub(crate) fn purge(&self, last: u64) {
        let mut runs = self.runs();
        while let Some(run) = runs.runs.pop_front_if(|run| run.last <= last) {
            runs.total = runs.total.saturating_sub(run.bytes);
        }
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.runs().total
    }

    /// The last entry that has to go so that at most half of `max` stays; `None`: there are no more than `max`.
    pub(crate) fn excess(&self, max: u64) -> Option<u64> {
        let runs = self.runs();
        let mut left = runs.total;
        if left <= max {
            return None;
        }
        let mut upto = None;
        for run in &runs.runs {
            if left <= max / 2 {
                break;
            }
            left = left.saturating_sub(run.bytes);
            upto = Some(run.last);
        }
        upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries 1 to `count`, a run each.
    fn log(count: u64) -> LogBytes {
        let log = LogBytes::default();
        (1..=count).for_each(|index| log.push(index, RUN_BYTES as usize));
        log
    }

    #[test]
    fn half_of_the_bound_stays_when_it_is_exceeded() {
        for (count, max, expect) in
            [(0, 4, None), (4, 4, None), (5, 4, Some(3)), (8, 4, Some(6)), (8, 1, Some(8)), (8, u64::MAX, None)]
        {
            assert_eq!(log(count).excess(RUN_BYTES.saturating_mul(max)), expect, "{count} of {max}");
        }
    }

    #[test]
    fn what_goes_is_not_counted_any_more() {
        let log = log(8);
        log.purge(3);
        assert_eq!(log.total(), 5 * RUN_BYTES);
        log.truncate(7);
        assert_eq!(log.total(), 3 * RUN_BYTES);
        assert_eq!(log.excess(2 * RUN_BYTES), Some(5));
        log.truncate(0);
        assert_eq!((log.total(), log.excess(0)), (0, None));
    }

    #[test]
    fn small_entries_share_a_run_which_goes_whole_or_not_at_all() {
        let log = LogBytes::default();
        (1..=10).for_each(|index| log.push(index, 100));
        log.purge(5);
        assert_eq!(log.total(), 1_000, "never less than there is");
        log.truncate(8);
        log.push(8, 100);
        log.purge(8);
        assert_eq!(log.total(), 0);
    }
}
