//! The policies that are compared.

mod arbiter;
mod plain;

use crate::trace::{Arrival, Trace};

/// What a policy tells the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Give up the weights of this model.
    Evict(usize),
    /// Load the weights of this model.
    Load(usize),
    /// Run this request.
    Start(usize),
    /// Refuse this request.
    Refuse(usize),
}

/// A policy for one device.
pub trait Policy {
    /// A request has come.
    fn arrives(&mut self, now: u64, id: usize, arrival: &Arrival);
    /// Weights are in place.
    fn loaded(&mut self, now: u64, model: usize);
    /// A request has ended.
    fn finished(&mut self, now: u64, id: usize);
    /// What to do now.
    fn decide(&mut self, now: u64) -> Vec<Act>;
    /// When to ask again without an event.
    fn wake(&self) -> Option<u64>;
}

/// The policies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The arbiter of `provost-gpu-vram`.
    Arbiter,
    /// The same without early evictions: weights stay for their residency, whatever it costs.
    Strict,
    /// Least recently used, by bytes, first come first served: a request whose weights cannot be
    /// had lets others pass for fifteen seconds and then holds them back.
    Lru,
    /// As Ollama does: one queue that the model at its head blocks while it needs room or the
    /// loader, and the model with the shortest keep-alive goes (all have the same here, so the
    /// first in the list that is idle).
    KeepAlive,
    /// As the router of llama.cpp does: a number of models, whatever their size, and the least
    /// recently used goes. The number is the largest that always fits.
    Count,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Arbiter, Self::Strict, Self::Lru, Self::KeepAlive, Self::Count];

    /// How tables and plots call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arbiter => "Provost",
            Self::Strict => "Provost, never early",
            Self::Lru => "LRU",
            Self::KeepAlive => "keep-alive (Ollama)",
            Self::Count => "count (llama.cpp)",
        }
    }

    /// A fresh policy for a trace.
    pub fn policy(self, trace: &Trace) -> Box<dyn Policy> {
        match self {
            Self::Arbiter => Box::new(arbiter::OfArbiter::new(trace, true)),
            Self::Strict => Box::new(arbiter::OfArbiter::new(trace, false)),
            _ => Box::new(plain::Plain::new(self, trace)),
        }
    }
}
