//! How much time has passed, by clocks that nobody can set.

use serde::{Deserialize, Serialize};

/// A reading of a proposer's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Which clock: random for each start of a control-plane node.
    pub source: u64,
    /// Nanoseconds since some moment of that start.
    pub up_ns: u64,
}

/// Clocks that are remembered: one for each control-plane node, and those that were before.
const MAX_SOURCES: usize = 16;

/// Counts time between commands of the same clock only, so that setting a clock or changing the
/// leader neither hurries nor stops it. It may run ahead of true time by the age of a new clock's
/// first command when that was applied; those who wait by it allow for that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Elapsed {
    now_ns: u64,
    /// Latest used last.
    sources: Vec<Source>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    source: u64,
    up_ns: u64,
    /// The elapsed time at that reading.
    at_ns: u64,
}

impl Elapsed {
    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub(super) fn advance(&mut self, reading: ClockReading) {
        let known = self.sources.iter().position(|s| s.source == reading.source).map(|i| self.sources.remove(i));
        let source = match known {
            Some(last) => {
                let passed = reading.up_ns.saturating_sub(last.up_ns);
                Source { up_ns: last.up_ns.max(reading.up_ns), at_ns: last.at_ns.saturating_add(passed), ..last }
            }
            None => Source { source: reading.source, up_ns: reading.up_ns, at_ns: self.now_ns },
        };
        self.now_ns = self.now_ns.max(source.at_ns);
        if self.sources.len() == MAX_SOURCES {
            self.sources.remove(0);
        }
        self.sources.push(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_between_readings_of_one_clock() {
        let mut elapsed = Elapsed::default();
        let table = [
            // source, up, elapsed after it
            (1, 500, 0),
            (1, 700, 200),
            (1, 600, 200),
            // Another clock counts from here, wherever it stands.
            (2, 9_000_000, 200),
            (2, 9_000_050, 250),
            (1, 760, 260),
            (3, 0, 260),
            (3, 100, 360),
            (1, 800, 360),
        ];
        for (source, up_ns, expect) in table {
            elapsed.advance(ClockReading { source, up_ns });
            assert_eq!(elapsed.now_ns(), expect, "{source} {up_ns}");
        }
        for source in 10..100 {
            elapsed.advance(ClockReading { source, up_ns: 5 });
        }
        assert_eq!((elapsed.now_ns(), elapsed.sources.len()), (360, MAX_SOURCES));
    }
}
