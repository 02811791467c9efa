//! The identity of weights: what they contain, not what they are called.

use std::fmt;

/// Digest of weights and of everything that shapes the network built from them.
///
/// Two models with the same key share one copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightsKey([u8; 32]);

impl WeightsKey {
    /// Wraps a 256-bit content digest.
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub fn digest(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for WeightsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}
