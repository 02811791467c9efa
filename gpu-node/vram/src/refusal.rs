//! Why bytes were not granted.

use crate::WeightsKey;

/// Why bytes were not granted; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can never fit.
    #[error("needs {needed} bytes, the device has {capacity} in all")]
    TooLarge {
        /// Bytes asked for.
        needed: u64,
        /// Bytes of the device.
        capacity: u64,
    },
    /// It does not fit beside what is in use; it may later.
    #[error("needs {needed} bytes; {free} are free and {evictable} more could be freed")]
    NoRoom {
        /// Bytes asked for.
        needed: u64,
        /// Bytes free now.
        free: u64,
        /// Bytes of idle weights that eviction could free.
        evictable: u64,
    },
    /// These weights are leaving; they can be asked for again when they are gone.
    #[error("weights {key:?} are being removed")]
    Draining {
        /// Which.
        key: WeightsKey,
    },
}

impl Refusal {
    /// True when the same request may succeed once others have finished.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}
