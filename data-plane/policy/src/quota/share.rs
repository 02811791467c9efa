//! A share of a rate, kept by the generic cell rate algorithm without a lock.
//!
//! The theoretical arrival time stands in one word with a generation, rate and burst in another.
//! GCRA: ITU-T I.371, annex A; a share of `rate` a second and `burst` at once admits at most
//! `rate + burst` in any second.
//!
//! A call that is larger than the burst, up to `rate + burst`, is admitted when the share lay unused for as long as the part
//! beyond the burst takes to come back, and leaves a debt that is paid before anything else is admitted. The law holds
//! for it too: with `level` as what may be taken at once, at most the burst, what a second admits is at most
//! `level at its start - level at its end + rate - what overflowed`, and before a call of `units` at least `units - burst`
//! overflowed, while the debt is no more than that.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds of a tick, as a power of two: 64.
const TICK_SHIFT: u32 = 6;
/// Ticks of a second.
const TICKS: u64 = 1_000_000_000 >> TICK_SHIFT;
/// The high bits count changes of the share.
const GENERATION_SHIFT: u32 = 56;
const MAX_TAT: u64 = (1 << GENERATION_SHIFT) - 1;
/// The low bits of the parameters are the burst.
const BURST_BITS: u32 = 24;
const MAX_BURST: u64 = (1 << BURST_BITS) - 1;

/// A share.
#[derive(Debug, Default)]
pub(super) struct Share {
    word: AtomicU64,
    params: AtomicU64,
    expires_ns: AtomicU64,
}

/// A share's rate and burst, in ticks.
#[derive(Clone, Copy, Debug)]
struct Cells {
    /// Between units.
    interval: u64,
    /// Of a full burst.
    depth: u64,
    /// Units of the largest call.
    most: u64,
}

/// Why a unit cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// No share, or it has ended.
    Ended,
    /// In so many nanoseconds.
    For(u64),
    /// More at once than the share ever gives.
    TooLarge,
}

impl Share {
    /// Takes units now. Returns the word before and after, with which to give them back.
    pub(super) fn take(&self, units: u64, now_ns: u64) -> Result<(u64, u64), Late> {
        if now_ns >= self.expires_ns.load(Ordering::Acquire) {
            return Err(Late::Ended);
        }
        let now = now_ns >> TICK_SHIFT;
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            // After the word: if the share changes in between, the word has changed too.
            let Cells { interval, depth, most } = self.cells().ok_or(Late::Ended)?;
            if units > most {
                return Err(Late::TooLarge);
            }
            let (cost, tat) = (units.saturating_mul(interval), word & MAX_TAT);
            // Beyond the burst the time counts in which the share was full and nothing was taken.
            let begins = if cost > depth { tat } else { tat.max(now) };
            let due = begins.saturating_add(cost).saturating_sub(depth);
            if due > now {
                return Err(Late::For((due - now) << TICK_SHIFT));
            }
            let next = (word & !MAX_TAT) | tat.max(now).saturating_add(cost).min(MAX_TAT);
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok((word, next)),
                Err(seen) => word = seen,
            }
        }
    }

    /// Undoes a take if nothing was taken since; else the units are gone.
    pub(super) fn give_back(&self, before: u64, after: u64) {
        let _ = self.word.compare_exchange(after, before, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether these are more units than the burst.
    pub(super) fn is_large(&self, units: u64) -> bool {
        units > self.params.load(Ordering::Acquire) & MAX_BURST
    }

    /// What the rate and the burst come to.
    fn cells(&self) -> Option<Cells> {
        let params = self.params.load(Ordering::Acquire);
        let (rate, burst) = (params >> BURST_BITS, params & MAX_BURST);
        let interval = TICKS.div_ceil(rate.max(1));
        let cells = || Cells { interval, depth: burst.saturating_mul(interval), most: rate.saturating_add(burst) };
        (rate > 0 && burst > 0).then(cells)
    }

    /// Sets another rate and burst. What was taken lately counts on: a share that grows keeps its
    /// deficit in units, one that shrinks begins with nothing.
    pub(super) fn set(&self, rate: u64, burst: u64, now_ns: u64) {
        let old = self.cells();
        let rate = rate.min(u64::MAX >> BURST_BITS);
        let burst = burst.min(MAX_BURST);
        let params = (rate << BURST_BITS) | burst;
        if self.params.swap(params, Ordering::AcqRel) == params {
            return;
        }
        let now = now_ns >> TICK_SHIFT;
        let new = self.cells();
        let change = |word: u64| {
            let behind = (word & MAX_TAT).saturating_sub(now);
            let behind = match (old, new) {
                (Some(old), Some(new)) => {
                    let grows = new.interval <= old.interval && new.depth / new.interval >= old.depth / old.interval;
                    let owed = behind.div_ceil(old.interval).saturating_mul(new.interval);
                    if grows {
                        owed
                    } else if behind > old.depth {
                        // A debt stays one, but for no longer than a second remembers.
                        behind.max(new.depth).max(owed.min(TICKS.saturating_add(new.depth)))
                    } else {
                        behind.max(new.depth)
                    }
                }
                // The last share may have admitted within the second.
                (None, Some(new)) => {
                    if behind > 0 {
                        behind.max(new.depth)
                    } else {
                        0
                    }
                }
                (_, None) => behind,
            };
            let generation = (word >> GENERATION_SHIFT).wrapping_add(1) & 0xFF;
            Some((generation << GENERATION_SHIFT) | now.saturating_add(behind).min(MAX_TAT))
        };
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    pub(super) fn set_expiry(&self, expires_ns: u64) {
        self.expires_ns.store(expires_ns, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn share(rate: u64, burst: u64) -> Share {
        let share = Share::default();
        share.set(rate, burst, 0);
        share.set_expiry(u64::MAX);
        share
    }

    #[test]
    fn a_share_gives_its_burst_and_then_its_rate() {
        let share = share(10, 3);
        let taken = (0..5).filter(|_| share.take(1, SECOND).is_ok()).count();
        assert_eq!(taken, 3);
        let Err(Late::For(wait)) = share.take(1, SECOND) else { panic!("nothing is left") };
        assert!(wait <= SECOND / 10 + 64, "{wait}");
        assert!(share.take(1, SECOND + wait).is_ok());
        assert_eq!(share.take(14, 9 * SECOND), Err(Late::TooLarge));
        share.set_expiry(SECOND);
        assert_eq!(share.take(1, SECOND), Err(Late::Ended));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_unless_somebody_took_in_between() {
        let share = share(1, 1);
        let (before, after) = share.take(1, SECOND).unwrap();
        share.give_back(before, after);
        let (before, after) = share.take(1, SECOND).unwrap();
        share.take(1, 2 * SECOND).unwrap();
        share.give_back(before, after);
        assert!(share.take(1, 2 * SECOND).is_err());
    }

    #[test]
    fn a_call_beyond_the_burst_waits_until_the_share_was_unused_and_is_paid_off() {
        let share = share(10, 4);
        share.take(1, SECOND).unwrap();
        // The burst is whole again at 1.1 s; six units beyond it take 0.6 s more.
        let Err(Late::For(wait)) = share.take(10, SECOND) else { panic!("it is too early") };
        assert!((SECOND * 7 / 10..SECOND * 7 / 10 + 200).contains(&wait), "{wait}");
        let now = SECOND + wait;
        share.take(10, now).unwrap();
        let Err(Late::For(wait)) = share.take(1, now) else { panic!("there is a debt") };
        assert!((SECOND * 7 / 10..SECOND * 7 / 10 + 200).contains(&wait), "{wait}");
        assert!(share.take(1, now + wait).is_ok());
        assert!(share.is_large(5) && !share.is_large(4));
    }

    /// Units in the fullest second that begins with one of these.
    fn fullest(taken: &[(u64, u64)]) -> u64 {
        let from =
            |t: u64| taken.iter().filter(|(x, _)| *x >= t && *x < t + SECOND).map(|(_, units)| units).sum::<u64>();
        taken.iter().map(|(t, _)| from(*t)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_second_holds_more_than_the_share_even_while_it_changes(
            steps in proptest::collection::vec((0..30_000_000_u64, 1..4_u64), 1..400),
            shares in proptest::collection::vec((1..20_u64, 1..8_u64), 1..4),
        ) {
            let top = shares.iter().map(|(r, b)| r + b).max().unwrap();
            let share = share(shares[0].0, shares[0].1);
            let (mut now, mut times) = (SECOND, Vec::new());
            for (i, (gap, units)) in steps.iter().enumerate() {
                now += gap;
                if i % 97 == 96 {
                    let (rate, burst) = shares[(i / 97) % shares.len()];
                    share.set(rate, burst, now);
                }
                if share.take(*units, now).is_ok() {
                    times.push((now, *units));
                }
            }
            prop_assert!(fullest(&times) <= top, "{} of {top}", fullest(&times));
        }

        #[test]
        fn no_second_holds_more_than_the_share_however_large_the_calls_are(
            steps in proptest::collection::vec((0..400_000_000_u64, 1..41_u64), 1..200),
            (rate, burst) in (1..20_u64, 1..20_u64),
        ) {
            let (share, most) = (share(rate, burst), rate + burst);
            let (mut now, mut times) = (SECOND, Vec::new());
            for (gap, units) in steps {
                now += gap;
                let units = units.min(most);
                if share.take(units, now).is_ok() {
                    times.push((now, units));
                }
            }
            prop_assert!(fullest(&times) <= most, "{} of {most}", fullest(&times));
            // None is refused for good.
            prop_assert!(share.take(most, now + 40 * SECOND).is_ok());
        }
    }
}
