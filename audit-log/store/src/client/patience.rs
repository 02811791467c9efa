//! How long a writer waits for a replica before it asks another.
//!
//! A replica that is gone is to be left soon; one that only commits slowly is to be heard out, because a batch that
//! is sent again has to be committed again, and takes as long as before. So the wait grows each time nothing was heard,
//! and falls again as answers come sooner. Sending again is safe at any time: the machine answers a batch that it has.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// One replica gets so long to answer before another is asked, while answers come.
pub(crate) const FIRST: Duration = Duration::from_secs(2);
/// And never longer than this: a caller waits so long for its record.
const LONGEST: Duration = Duration::from_secs(5);

/// The wait for the next answer, in milliseconds.
pub(crate) struct Patience(AtomicU64);

impl Default for Patience {
    fn default() -> Self {
        Self(AtomicU64::new(ms(FIRST)))
    }
}

impl Patience {
    /// How long the next replica is waited for.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Nothing was heard within `limit`. Those who waited side by side make it grow once.
    pub(crate) fn late(&self, limit: Duration) {
        self.0.fetch_max(ms((limit * 2).clamp(FIRST, LONGEST)), Ordering::Relaxed);
    }

    /// A commit was answered after this time: the next one may take twice as long. A single quick one among slow ones
    /// does not make it forget them at once.
    pub(crate) fn answered(&self, took: Duration) {
        let next = (took * 2).max(self.limit() / 2).clamp(FIRST, LONGEST);
        self.0.store(ms(next), Ordering::Relaxed);
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_makes_it_grow_and_quick_answers_bring_it_back() {
        let patience = Patience::default();
        let ms = Duration::from_millis;
        for expect in [4_000, 5_000, 5_000] {
            patience.late(patience.limit());
            assert_eq!(patience.limit(), ms(expect));
        }
        // Commits of three seconds keep it.
        patience.answered(ms(3_000));
        assert_eq!(patience.limit(), ms(5_000));
        for expect in [2_500, 2_000, 2_000] {
            patience.answered(ms(3));
            assert_eq!(patience.limit(), ms(expect));
        }
        // Two that waited two seconds side by side.
        patience.late(FIRST);
        patience.late(FIRST);
        assert_eq!(patience.limit(), ms(4_000));
    }
}
