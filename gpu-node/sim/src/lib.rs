//! Trace-driven simulator that compares policies for device memory.
//!
//! Purpose: show what the arbiter of `provost-gpu-vram` is worth beside simpler rules, on traffic
//! that anybody can make again: everything follows from a seed.
//! Invariants: the device checks what it is told; a policy that evicts what is in use, starts on
//! what is absent or exceeds the capacity is counted, not believed.
//! Left out: computing. A request runs for the time that its trace says, however many run beside
//! it, and weights come over the bus one after the other.

mod device;
mod mixes;
mod plot;
mod policy;
mod random;
mod summary;
mod table;
mod trace;

pub use device::{Outcome, run};
pub use mixes::mixes;
pub use plot::plot;
pub use policy::{Act, Policy, Rule};
pub use summary::{Summary, compare};
pub use table::table;
pub use trace::{Arrival, Model, Trace};

/// The seeds of the published figures.
pub const SEEDS: std::ops::Range<u64> = 1..3;
