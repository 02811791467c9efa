//! Low-rank adapters (LoRA; Hu et al., 2021) over a shared base.
//!
//! Purpose: many fine-tuned models with one copy of the base's weights. An [`Adapter`] is read from a folder as PEFT writes it,
//! and added to the base's output while it is computed, `y = xW + s(xA)B`: rows of a batch are grouped by adapter, the base
//! is never changed.
//! Invariants: what an adapter asks for and is not computed here is refused by the name of the field; rows without an adapter
//! are computed as if there were none; equal digests mean equal adapters.
//! Left out: training (`crate::tune`), and who may be in memory (`provost-gpu-serve`).

mod adapted;
mod adapter;
mod config;
mod files;
mod target;

pub(crate) use adapted::Adapted;
pub use adapter::Adapter;
pub(crate) use config::{AdapterConfig, MAX_RANK};
pub(crate) use files::{AdapterFiles, CONFIG_FILE, TENSORS_FILE};
pub(crate) use target::Target;
