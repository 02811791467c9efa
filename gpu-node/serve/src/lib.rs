//! GPU node service: scheduler thread, model catalogue, inference port.
//!
//! Purpose: answer embedding and chat requests with the models that are declared ([`GpuNode::declare`]) and those of a
//! directory, within a configured amount of memory; keep imported models ([`ModelStore`]). [`GpuNode::start`] gives the port
//! that the data plane calls.
//! Invariants: one thread issues all computation; it never waits for a caller; what it holds is
//! bounded (queue, active answers, bytes); dropping a future or a stream cancels its work; nothing
//! in use is evicted.
//! Left out: what a model computes (`provost-gpu-infer`), who may live in memory and whose turn it is
//! (`provost-gpu-vram`), and who may ask (the data plane).

mod arenas;
mod catalogue;
mod chats;
mod config;
mod contain;
mod embeds;
mod error;
mod exclusive;
mod fair;
mod inbox;
mod job;
mod loader;
mod node;
mod orders;
mod places;
mod residency;
mod scheduler;
mod standing;
mod stats;
mod store;
mod turns;
mod usage;

pub use config::GpuConfig;
pub use error::StartError;
pub use exclusive::{ExclusiveDevice, ExclusiveTerms};
pub use node::GpuNode;
pub use orders::{ModelOrder, ModelRefusal};
pub use provost_gpu_infer::KvUsage;
pub use provost_gpu_vram::{Priority, Usage};
pub use standing::{ModelStanding, ModelState};
pub use stats::{Counts, RefusedFor, WAIT_BOUNDS_MS, Waits};
pub use store::{Imported, Manifest, ModelStore, StoreError, StoredFile};
