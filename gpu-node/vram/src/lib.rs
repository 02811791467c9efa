//! Device-memory leases and eviction as a pure machine.
//!
//! Purpose: decide what may live in a device's memory, and who may use it next. [`DeviceMemory`]
//! keeps the books in bytes; [`Arbiter`] puts a bounded queue, priorities, turns and exclusive use
//! on top of them. A driver (the scheduler of `provost-gpu-serve`) carries out what they decide:
//! drop these weights, load those.
//! Invariants: the books never exceed the capacity; weights with a live lease are never evicted;
//! one copy of the same content, however many models name it; the queue is bounded; who may wait
//! is started or refused in the end; exclusive use ends.
//! Left out: clocks, files and devices. One machine is for one device. The same machine serves
//! host memory (a CPU with a configured capacity) and a graphics card.

mod action;
mod answer;
mod arbiter;
mod eviction;
mod key;
mod lease;
mod limits;
mod memory;
mod refusal;
mod request;

pub use action::{Action, Drift, ExclusiveToken, Recovery, Rejection};
pub use answer::{Admission, Drain, Reserved, Standing, Usage};
pub use arbiter::{Arbiter, ExclusiveRequest, Unfit};
pub use key::WeightsKey;
pub use lease::Lease;
pub use limits::Limits;
pub use memory::DeviceMemory;
pub use refusal::Refusal;
pub use request::{Grant, Lane, Priority, Request, Ticket, Weights};
