//! What the books answer.

use crate::{Lease, WeightsKey};

/// The answer to a request for weights.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// They are resident: use them.
    Ready {
        /// Pins them.
        lease: Lease,
    },
    /// An earlier caller is loading them: wait for that.
    Loading {
        /// Pins them from the moment they are loaded.
        lease: Lease,
    },
    /// The caller drops `evict`, loads, and then reports `loaded` or `load_failed`.
    Load {
        /// Pins them from the moment they are loaded.
        lease: Lease,
        /// To be dropped first.
        evict: Vec<WeightsKey>,
    },
}

/// A granted budget of bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Holds the bytes.
    pub lease: Lease,
    /// To be dropped before the bytes are used.
    pub evict: Vec<WeightsKey>,
}

/// What became of a request to remove weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They were idle: drop them now.
    Drop,
    /// They are in use or loading: `release` or `loaded` will say when to drop them.
    Later,
    /// They were not here.
    Absent,
}

/// Where weights stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They are not in memory.
    Absent,
    /// They are being loaded.
    Loading,
    /// They can be used.
    Ready {
        /// Requests that use them.
        leases: u32,
    },
    /// They go as soon as nobody uses them.
    Draining {
        /// Requests that use them.
        leases: u32,
    },
}

/// Bytes by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the device.
    pub capacity: u64,
    /// Bytes of weights, in use or idle.
    pub weights: u64,
    /// Bytes of granted budgets.
    pub reserved: u64,
}
