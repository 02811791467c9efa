//! A node that failed gets no requests for a while.

use std::time::{Duration, Instant};

/// The first while; it doubles with each failure that follows one.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Aside {
    failures: u32,
    until: Option<Instant>,
}

impl Aside {
    /// A request was lost there. Those that are lost together are one failure.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.remaining(now).is_none() {
            let factor = 2_u32.saturating_pow(self.failures);
            self.failures = self.failures.saturating_add(1);
            self.until = Some(now + FIRST.saturating_mul(factor).min(LONGEST));
        }
    }

    /// An answer came from there to its end.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// For how long it gets none; `None`: it may get some.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        let remaining = self.until?.saturating_duration_since(now);
        (!remaining.is_zero()).then_some(remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiles_double_up_to_the_longest_and_end_with_a_success() {
        let (mut aside, mut now) = (Aside::default(), Instant::now());
        assert_eq!(aside.remaining(now), None);
        for expect in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let expect = Duration::from_millis(expect);
            aside.failed(now);
            aside.failed(now + Duration::from_millis(1));
            assert_eq!(aside.remaining(now), Some(expect), "calls that are lost together count once");
            now += expect;
            assert_eq!(aside.remaining(now), None);
        }
        aside.failed(now);
        aside.succeeded();
        assert_eq!(aside.remaining(now), None);
        aside.failed(now);
        assert_eq!(aside.remaining(now), Some(FIRST));
    }
}
