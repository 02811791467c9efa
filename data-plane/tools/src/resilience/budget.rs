//! How often and when something may be tried again, as a pure machine.
//!
//! Invariant: over any time, retries are at most the share of calls that the policy gives, the reserve, and what
//! was added to the reserve by one a second: an upstream that fails gets little more load than it had. Time and
//! entropy come in as arguments.

use provost_types::RetrySpec;

/// What one retry costs.
const RETRY: u64 = 1_000;
/// Retries in reserve, so that a plugin with few calls can retry at all.
pub(crate) const RESERVE: u64 = 10;
/// Retries that a share of calls can add up to at most.
const MAX_SAVED: u64 = 1_000;

/// The machine.
#[derive(Debug)]
pub(crate) struct Budget {
    percent: u64,
    /// From calls, in thousandths of a retry.
    saved: u64,
    /// From time, in thousandths of a retry.
    reserve: u64,
    refilled_ms: u64,
}

impl Budget {
    pub(crate) fn new(percent: u32) -> Self {
        Self { percent: percent.into(), saved: 0, reserve: RESERVE * RETRY, refilled_ms: 0 }
    }

    /// A call came.
    pub(crate) fn call(&mut self) {
        self.saved = (self.saved + self.percent * RETRY / 100).min(MAX_SAVED * RETRY);
    }

    /// Takes one retry, if there is one.
    pub(crate) fn take(&mut self, now_ms: u64) -> bool {
        // One a second: a thousandth of a retry in a millisecond.
        let elapsed = now_ms.saturating_sub(self.refilled_ms);
        self.refilled_ms = self.refilled_ms.max(now_ms);
        self.reserve = self.reserve.saturating_add(elapsed).min(RESERVE * RETRY);
        for pot in [&mut self.saved, &mut self.reserve] {
            if *pot >= RETRY {
                *pot -= RETRY;
                return true;
            }
        }
        false
    }
}

/// The pause before an attempt (2 is the first retry): twice as long each time, up to a bound, of which the second
/// half is random.
pub(crate) fn pause_ms(spec: &RetrySpec, attempt: u32, entropy: u64) -> u64 {
    let doublings = attempt.saturating_sub(2).min(32);
    let most = spec.backoff_ms.saturating_mul(1 << doublings).min(spec.max_backoff_ms);
    let half = most / 2;
    half + entropy % (most - half + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_half_random() {
        let spec = RetrySpec { backoff_ms: 100, max_backoff_ms: 350, ..RetrySpec::default() };
        for (attempt, least, most) in [(2, 50, 100), (3, 100, 200), (4, 175, 350), (5, 175, 350), (40, 175, 350)] {
            assert_eq!(pause_ms(&spec, attempt, 0), least);
            assert!((0..1_000).all(|e| (least..=most).contains(&pause_ms(&spec, attempt, e * 7_919))), "{attempt}");
        }
        assert_eq!(pause_ms(&RetrySpec { backoff_ms: 0, ..spec }, 2, u64::MAX), 0);
    }

    #[test]
    fn a_reserve_is_there_without_calls_and_comes_back() {
        let mut budget = Budget::new(0);
        assert_eq!((0..20).filter(|_| budget.take(0)).count(), 10);
        assert_eq!((0..20).filter(|_| budget.take(3_000)).count(), 3);
        assert_eq!((0..20).filter(|_| budget.take(1_000_000)).count(), 10);
    }

    proptest! {
        #[test]
        fn it_is_never_exceeded(percent in 0_u32..=100, steps in prop::collection::vec((0_u64..300, any::<bool>()), 1..600)) {
            let mut budget = Budget::new(percent);
            let (mut now, mut calls, mut taken) = (0_u64, 0_u64, 0_u64);
            for (wait, is_call) in steps {
                now += wait;
                if is_call {
                    calls += 1;
                    budget.call();
                } else {
                    taken += u64::from(budget.take(now));
                }
                prop_assert!(taken * 1_000 <= calls * u64::from(percent) * 10 + RESERVE * 1_000 + now);
            }
        }
    }
}
