//! What the arbiter tells its driver.

use crate::{Grant, Ticket, Weights, WeightsKey};

/// Something to do. Actions are done in the order in which they come; starts may be left until all
/// others are done, and are where [`Arbiter::fit`](crate::Arbiter::fit) follows.
#[must_use = "what the arbiter has decided is in its books already"]
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop these weights before anything that follows.
    Evict {
        /// Which.
        key: WeightsKey,
    },
    /// Load these weights, then report `loaded`, `out_of_memory` or `load_failed`.
    Load {
        /// Which.
        weights: Weights,
    },
    /// Give the memory of this cache back before anything that follows. Nobody uses it.
    DropCache {
        /// Of which weights.
        key: WeightsKey,
    },
    /// Give the memory of this adapter back before anything that follows. Nobody uses it.
    DropAdapter {
        /// The weights that it is used over.
        base: WeightsKey,
        /// What it contains.
        adapter: WeightsKey,
    },
    /// Take memory for a cache of these weights, which have none.
    MakeCache {
        /// Of which weights.
        key: WeightsKey,
        /// How much.
        bytes: u64,
    },
    /// Run this request.
    Start {
        /// Its right to run.
        grant: Grant,
    },
    /// Answer this request with a refusal.
    Refuse {
        /// Which.
        ticket: Ticket,
        /// Why.
        why: Rejection,
    },
    /// The device is empty and the token's holder has it, for as long as it shows signs of life.
    ExclusiveGranted {
        /// Whose.
        token: ExclusiveToken,
    },
    /// What ran did not end in time: the token is void, nothing was evicted, requests go on.
    ExclusiveRefused {
        /// Whose.
        token: ExclusiveToken,
    },
    /// The holder showed no sign of life or had its time: the token is void. End the holder; what
    /// it still has of the device shows in the next measurement.
    ExclusiveLapsed {
        /// Whose.
        token: ExclusiveToken,
    },
}

/// Names one use of the whole device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExclusiveToken(pub(crate) u64);

/// Why a request was not, or not any more, let wait. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Weights and budget can never fit together.
    #[error("needs {needed} bytes, the device has {capacity} for weights and requests together")]
    TooLarge {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that can be given.
        capacity: u64,
    },
    /// As many as may wait do.
    #[error("{waiting} requests are waiting, which is the bound; try again in {retry_after_micros} us")]
    QueueFull {
        /// How many wait.
        waiting: usize,
        /// When a place is likely.
        retry_after_micros: u64,
    },
    /// It could not start within its patience.
    #[error("no memory within the time that the request allowed; try again in {retry_after_micros} us")]
    Overdue {
        /// When a place is likely.
        retry_after_micros: u64,
    },
    /// The device belongs, or is about to belong, to one user.
    #[error("the device is in exclusive use; try again in {retry_after_micros} us")]
    Exclusive {
        /// When it ends at the latest.
        retry_after_micros: u64,
    },
    /// Its weights could not be loaded.
    #[error("its weights could not be loaded")]
    LoadFailed,
}

/// What to do about an allocation that the device refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Drop these, give scratch memory back, and try once more.
    Retry {
        /// To be dropped.
        evict: Vec<WeightsKey>,
    },
    /// Give up: report `load_failed`, or finish the request with an error.
    Refuse,
}

/// The books beside the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Bytes free by the books, headroom included.
    pub booked_free_bytes: u64,
    /// Bytes free by the device.
    pub measured_free_bytes: u64,
    /// Bytes that are missing and are not given away until they are back.
    pub missing_bytes: u64,
    /// True when the two differ by more than one part in a hundred of the device.
    pub alarm: bool,
}
