//! How much time has passed, by clocks that nobody can set.
//!
//! Invariant: between two commands of the log hardly more time is counted than passed. Whoever waits
//! for the count to grow by `n` after a command has waited for `n`, less [`MAX_STEP_NS`] and the time
//! that one command was on its way. Counting less is always safe: what waits, waits longer.
//! How: one clock at a time is kept to, the keeper's. What another clock says of the time before its
//! own last command is of no use, since nobody knows when the commands between were made: a clock that
//! was silent for an hour and speaks again would make an hour pass at once.

use serde::{Deserialize, Serialize};

/// A reading of a proposer's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Which clock: random for each start of a control-plane node.
    pub source: u64,
    /// Nanoseconds since some moment of that start.
    pub up_ns: u64,
}

/// Other clocks than the keeper's that are remembered: one for each control-plane node, and more.
const MAX_OTHERS: usize = 16;
/// What one command of the keeper adds at most: a command of somebody else that was made since its
/// last may have been made just now. Longer than holders of shares are silent.
const MAX_STEP_NS: u64 = 2_000_000_000;
/// A clock that takes over counts so late: its first command may have been so long on its way. This is
/// how a new leader waits for the time to live of a share.
pub(super) const NEW_SOURCE_LAG_NS: u64 = super::SHARE_TTL_MS * 1_000_000;

/// The count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Elapsed {
    now_ns: u64,
    /// The clock that counts, as it was read last.
    keeper: Option<ClockReading>,
    /// The first reading of each other clock since then, in that order.
    others: Vec<ClockReading>,
}

impl Elapsed {
    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub(super) fn advance(&mut self, reading: ClockReading) {
        let passed = match self.keeper {
            None => 0,
            Some(keeper) if keeper.source == reading.source => {
                if reading.up_ns <= keeper.up_ns {
                    // Two commands of one clock changed places.
                    return;
                }
                reading.up_ns - keeper.up_ns
            }
            Some(_) => match self.others.iter().find(|first| first.source == reading.source) {
                // The keeper is silent for as long as a share lives, by this clock: it takes over.
                Some(first) if reading.up_ns.saturating_sub(first.up_ns) > NEW_SOURCE_LAG_NS => {
                    reading.up_ns - first.up_ns - NEW_SOURCE_LAG_NS
                }
                Some(_) => return,
                None => {
                    if self.others.len() == MAX_OTHERS {
                        self.others.remove(0);
                    }
                    self.others.push(reading);
                    return;
                }
            },
        };
        self.now_ns = self.now_ns.saturating_add(passed.min(MAX_STEP_NS));
        self.keeper = Some(reading);
        self.others.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::{SHARE_REUSE_NS, SHARE_TTL_MS};

    const MS: u64 = 1_000_000;

    #[test]
    fn time_passes_by_one_clock_until_it_is_silent() {
        let mut elapsed = Elapsed::default();
        let table = [
            // source, up, elapsed after it: milliseconds
            (1, 500, 0),
            (1, 700, 200),
            (1, 600, 200),
            (1, 800, 300),
            // Others do not count while the first speaks.
            (2, 9_000_000, 300),
            (2, 9_001_000, 300),
            (1, 1_000, 500),
            (2, 9_002_000, 500),
            (2, 9_007_000, 500),
            // It is silent for the time to live of a share: another takes over, that much late.
            (2, 9_007_100, 600),
            (2, 9_008_100, 1_600),
            // When it comes back it says nothing of the time between.
            (1, 900_000, 1_600),
            (1, 903_000, 1_600),
            (2, 9_009_000, 2_500),
            // A long silence of all counts as a short one.
            (2, 19_009_000, 4_500),
            (3, 0, 4_500),
            (2, 19_009_100, 4_600),
        ];
        for (source, up, expect) in table {
            elapsed.advance(ClockReading { source, up_ns: up * MS });
            assert_eq!(elapsed.now_ns(), expect * MS, "{source} {up}");
        }
        for source in 10..100 {
            elapsed.advance(ClockReading { source, up_ns: 5 });
        }
        assert_eq!((elapsed.now_ns(), elapsed.others.len()), (4_600 * MS, MAX_OTHERS));
    }

    proptest! {
        /// The law that shares stand on: what is free again after `SHARE_REUSE_NS` was not renewed
        /// within its time to live. Clocks come and go, are silent, and commands take up to 4 s.
        #[test]
        fn a_share_is_never_free_before_its_holder_has_stopped(
            steps in proptest::collection::vec(
                (0..4_u64, prop_oneof![6 => 1..900_u64, 2 => 900..6_000_u64, 1 => 6_000..4_000_000_u64],
                    0..4_000_u64, 0..40_u64),
                2..300,
            ),
        ) {
            let mut elapsed = Elapsed::default();
            let (mut now, mut names) = (1_000_000 * MS, [0, 1, 2, 3]);
            let mut applied: Vec<(u64, u64)> = Vec::new();
            for (who, gap, age, restart) in steps {
                now += gap * MS;
                if restart == 0 {
                    names[who as usize] += 4;
                }
                let source = names[who as usize];
                // Each clock began at some time of its own.
                elapsed.advance(ClockReading { source, up_ns: now - age * MS - source % 7 * 1_000 * MS });
                for (made, counted) in &applied {
                    if elapsed.now_ns() - counted >= SHARE_REUSE_NS {
                        let true_ms = (now - made) / MS;
                        prop_assert!(true_ms >= SHARE_TTL_MS, "free after {true_ms} ms");
                    }
                }
                applied.push((now, elapsed.now_ns()));
            }
        }

        /// And it does come free: where holders speak every second, at about the pace of time.
        #[test]
        fn time_does_pass(clocks in 1..5_u64, seconds in 20..200_u64) {
            let mut elapsed = Elapsed::default();
            for tick in 0..seconds * 4 {
                elapsed.advance(ClockReading { source: tick % clocks, up_ns: tick * 250 * MS });
            }
            prop_assert!(elapsed.now_ns() >= (seconds - 2) * 1_000 * MS, "{} of {seconds} s", elapsed.now_ns());
        }
    }
}
