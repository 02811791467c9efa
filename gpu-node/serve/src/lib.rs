//! GPU node service: scheduler thread, model catalogue, inference port.
//!
//! Purpose: answer requests to chat, to embed and to write down what is said with the models that are declared ([`GpuNode::declare`]) and those of a
//! directory, within a configured amount of memory; keep imported models ([`ModelStore`]); and train adapters for models
//! while it serves nobody. [`GpuNode::start`] gives the port that the data plane calls, in its process; [`GpuService`] is the
//! same for the data planes of other processes. Declared models that a node lacks it copies from others
//! ([`GpuNode::fetch_models`], [`BlobService`]).
//! Invariants: one thread issues all computation; it never waits for a caller, and reads no request itself; what it holds is
//! bounded (queue, active answers, bytes); dropping a future or a stream cancels its work; nothing
//! in use is evicted.
//! Left out: what a model computes (`provost-gpu-infer`), who may live in memory and whose turn it is
//! (`provost-gpu-vram`), who may ask for what (the data plane), and which node is asked (the data plane, by [`GpuNode`]'s reports).

mod arenas;
mod blobs;
mod board;
mod catalogue;
mod chats;
mod config;
mod contain;
mod copies;
mod embeds;
mod error;
mod exclusive;
mod fair;
mod inbox;
mod job;
mod loader;
mod measured;
mod node;
mod orders;
mod places;
mod preparer;
mod preparing;
mod removal;
mod residency;
mod scheduler;
mod service;
mod speeches;
mod standing;
mod stats;
mod store;
mod tuning;
mod turns;
mod usage;

pub use blobs::BlobService;
pub use config::{AdapterModel, GpuConfig};
pub use copies::{BlobPeer, ModelCopy};
pub use error::StartError;
pub use exclusive::{ExclusiveDevice, ExclusiveTerms};
pub use node::GpuNode;
pub use orders::{ModelOrder, ModelRefusal};
pub use provost_gpu_infer::{
    AnswerSpeed, DeviceChoice, KvUsage, ModelSource, TaskFolder, TaskState, TuneError, TuneSettings, TuneStep,
    TuneTask, Tuned, answer_speeds, fine_tune,
};
pub use provost_gpu_vram::{Priority, Usage};
pub use removal::{Removal, StoredModel};
pub use service::{GpuCallers, GpuService};
pub use standing::{ModelStanding, ModelState};
pub use stats::{Counts, RefusedFor, WAIT_BOUNDS_MS, Waits};
pub use store::{Imported, Manifest, ModelStore, StoreError, StoredFile};
pub use tuning::{TuningStanding, TuningState};
pub use usage::DeviceNow;
