//! What is asked of the arbiter, and what it grants.

use crate::{Lease, WeightsKey};

/// How much a request, or a model, matters. Later ones go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Nobody waits for it: batches, warming up.
    Background,
    /// The rule.
    #[default]
    Normal,
    /// Somebody's next step hangs on it: it displaces idle weights of lower classes at once.
    Critical,
}

impl Priority {
    /// The class weight of GreedyDual-Size: how much dearer a byte of this class is.
    pub(crate) fn weight(self) -> f64 {
        match self {
            Self::Background => 0.25,
            Self::Normal => 1.0,
            Self::Critical => 4.0,
        }
    }

    /// Steps above the lowest.
    pub(crate) fn level(self) -> u64 {
        match self {
            Self::Background => 0,
            Self::Normal => 1,
            Self::Critical => 2,
        }
    }
}

/// Weights as the arbiter sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// What they contain; equal keys share one copy.
    pub key: WeightsKey,
    /// Bytes on the device.
    pub bytes: u64,
    /// Estimate of the time to load them, replaced by what is measured. Microseconds.
    pub load_micros: u64,
    /// How much keeping them matters.
    pub class: Priority,
}

/// A request for weights and for a budget of bytes beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The weights it uses.
    pub weights: Weights,
    /// Bytes it needs for itself, such as its KV cache. It gets both or waits for both.
    pub budget_bytes: u64,
    /// Estimate of how long it will run, to tell others when to come again. Microseconds.
    pub service_micros: u64,
    /// How much it matters.
    pub priority: Priority,
    /// It is refused when it could not start within this time. Microseconds.
    pub patience_micros: u64,
}

/// The name of a request that waits or runs; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// The right to run one request: its weights stay and its bytes are its own until
/// [`Arbiter::finish`](crate::Arbiter::finish) takes it back.
#[must_use = "a grant that is not finished stays booked"]
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    pub(crate) ticket: Ticket,
    pub(crate) key: WeightsKey,
    pub(crate) budget_bytes: u64,
    pub(crate) weights: Lease,
    pub(crate) budget: Lease,
}

impl Grant {
    /// Which request.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Which weights.
    pub fn key(&self) -> WeightsKey {
        self.key
    }
}
