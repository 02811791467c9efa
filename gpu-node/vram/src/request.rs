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
    /// How much keeping them matters to who asks; of all who do, who asks most and matters most decides.
    pub class: Priority,
}

/// Which places a request runs in. Each lane has its own, so that short work does not wait for the
/// places of long work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Runs for as long as an answer is made.
    #[default]
    Long,
    /// Runs for a few passes.
    Short,
}

/// A request for weights and for a budget of bytes beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The weights it uses.
    pub weights: Weights,
    /// Bytes it needs for itself. It gets both or waits for both.
    pub budget_bytes: u64,
    /// Bytes that it needs in the cache which all requests for these weights share, such as its
    /// blocks of a KV cache; 0 for none. The cache is made large enough, or it waits.
    pub cache_bytes: u64,
    /// Which places it runs in.
    pub lane: Lane,
    /// Estimate of how long it will run, to tell others when to come again. Microseconds.
    pub service_micros: u64,
    /// How much it matters.
    pub priority: Priority,
    /// It is refused when it could not start within this time. Microseconds.
    pub patience_micros: u64,
}

impl Request {
    /// Bytes of weights, budget and cache together.
    pub(crate) fn needed(&self) -> u64 {
        self.weights.bytes.saturating_add(self.budget_bytes).saturating_add(self.cache_bytes)
    }
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
    pub(crate) request: Request,
    /// When it was submitted.
    pub(crate) since: u64,
    /// Its weights had served nobody before it.
    pub(crate) was_fresh: bool,
    pub(crate) weights: Lease,
    pub(crate) budget: Lease,
    /// What it uses over the weights.
    pub(crate) adapter: Option<WeightsKey>,
}

impl Grant {
    /// Which request.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Which weights.
    pub fn key(&self) -> WeightsKey {
        self.request.weights.key
    }

    /// Which adapter over them.
    pub fn adapter(&self) -> Option<WeightsKey> {
        self.adapter
    }
}
