//! Which connections are let in, as a decision over counts.

use crate::mcp::QuicLimits;

/// What is done with a first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Accept,
    /// The client proves its address first: a flood from addresses that are not the sender's own
    /// costs no state.
    Retry,
    Refuse,
}

/// Decides. `connections` includes those whose handshake is under way.
pub(crate) fn admit(limits: &QuicLimits, connections: usize, handshakes: usize, is_proven: bool) -> Admission {
    if connections >= limits.max_connections {
        return Admission::Refuse;
    }
    if !is_proven && handshakes >= limits.retry_above {
        return Admission::Retry;
    }
    if handshakes >= limits.max_handshakes { Admission::Refuse } else { Admission::Accept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admissions() {
        let limits = QuicLimits { max_connections: 10, max_handshakes: 5, retry_above: 2, ..QuicLimits::DEFAULT };
        let table = [
            (0, 0, false, Admission::Accept),
            (9, 1, false, Admission::Accept),
            (10, 0, true, Admission::Refuse),
            (10, 3, false, Admission::Refuse),
            (3, 2, false, Admission::Retry),
            (3, 2, true, Admission::Accept),
            (5, 5, true, Admission::Refuse),
            // A Retry keeps nothing here, however many there are.
            (5, 5, false, Admission::Retry),
        ];
        for (connections, handshakes, is_proven, expect) in table {
            let got = admit(&limits, connections, handshakes, is_proven);
            assert_eq!(got, expect, "{connections} {handshakes} {is_proven}");
        }
    }
}
