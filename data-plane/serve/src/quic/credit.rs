//! How many streams a client may have open: few at first, more as it uses them.
//!
//! A stream that may be opened takes memory before it is. Most connections wait most of the time,
//! and never need many.

use quinn::{Connection, VarInt};

use crate::mcp::QuicLimits;

/// Streams of a new connection.
const FIRST: u32 = 16;

/// See the module.
pub(crate) struct Credit {
    granted: u32,
    max: u32,
}

impl Credit {
    /// What a connection begins with.
    pub(crate) fn new(limits: &QuicLimits) -> Self {
        Self { granted: FIRST.min(limits.max_streams), max: limits.max_streams }
    }

    /// Streams that may be open now.
    pub(crate) fn granted(&self) -> u32 {
        self.granted
    }

    /// Notes how many are open, and gives the client more before it must wait.
    pub(crate) fn used(&mut self, open: usize, connection: &Connection) {
        if let Some(more) = self.more(open) {
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(more));
        }
    }

    fn more(&mut self, open: usize) -> Option<u32> {
        if self.granted == self.max || open < self.granted as usize / 2 {
            return None;
        }
        self.granted = self.granted.saturating_mul(2).min(self.max);
        Some(self.granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_credit_in_use_doubles_it_up_to_the_bound() {
        for (max, steps) in [
            (
                256,
                &[
                    (1, None),
                    (7, None),
                    (8, Some(32)),
                    (15, None),
                    (16, Some(64)),
                    (200, Some(128)),
                    (200, Some(256)),
                    (256, None),
                ][..],
            ),
            (4, &[(1, None), (4, None)][..]),
            (20, &[(8, Some(20)), (20, None)][..]),
        ] {
            let mut credit = Credit::new(&QuicLimits { max_streams: max, ..QuicLimits::DEFAULT });
            assert_eq!(credit.granted(), FIRST.min(max));
            for (open, expect) in steps {
                assert_eq!(credit.more(*open), *expect, "{max}: {open}");
            }
        }
    }
}
