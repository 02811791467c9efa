//! Device-memory leases and eviction as a pure machine.
//!
//! Purpose: decide what may live in a device's memory. [`DeviceMemory`] keeps the books in bytes;
//! a driver (the scheduler of `provost-gpu-serve`) carries out what it decides: drop these
//! weights, load those.
//! Invariants: the books never exceed the capacity; weights with a live lease are never evicted;
//! one copy of the same content, however many models name it.
//! Left out: clocks, files, devices, priorities and exclusive mode. The same machine serves host
//! memory (a CPU with a configured capacity) and a graphics card.

mod key;
mod lease;
mod memory;
mod refusal;

pub use key::WeightsKey;
pub use lease::Lease;
pub use memory::{Admission, DeviceMemory, Drain, Reserved, Usage};
pub use refusal::Refusal;
