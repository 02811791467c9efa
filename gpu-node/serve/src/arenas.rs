//! The KV caches of the models that are in memory.
//!
//! Each chat model has one arena of blocks that all its answers share. Between answers it stays, for the
//! beginnings that it knows, until the arbiter wants its memory; it goes with its weights.

use std::collections::HashMap;

use provost_gpu_infer::{Decoder, Generation, InferError, KvPool, KvUsage};
use provost_gpu_vram::WeightsKey;

/// The arenas by weights.
#[derive(Default)]
pub(crate) struct Arenas(HashMap<WeightsKey, KvPool>);

/// What became of an answer that wants its place.
pub(crate) enum Seat {
    Taken,
    /// Others hold the blocks.
    Full,
    /// There is no arena.
    Missing,
}

impl Arenas {
    /// Takes memory for an arena.
    pub(crate) fn make(&mut self, key: WeightsKey, decoder: &Decoder, bytes: u64) -> Result<(), InferError> {
        let pool = decoder.kv_pool(bytes).inspect_err(|cause| {
            tracing::error!(%cause, bytes, "the device refused a KV cache that the books allow");
        })?;
        self.0.insert(key, pool);
        Ok(())
    }

    /// Gives the memory of an arena back.
    pub(crate) fn remove(&mut self, key: WeightsKey) {
        self.0.remove(&key);
    }

    /// Gives an answer its place in the arena of its model.
    pub(crate) fn seat(&self, key: WeightsKey, generation: &mut Generation) -> Seat {
        match self.0.get(&key) {
            None => Seat::Missing,
            Some(pool) if generation.take_place(pool) => Seat::Taken,
            Some(_) => Seat::Full,
        }
    }

    /// All arenas together.
    pub(crate) fn usage(&self) -> KvUsage {
        self.0.values().map(KvPool::usage).fold(KvUsage::default(), |sum, one| KvUsage {
            capacity: sum.capacity + one.capacity,
            held: sum.held + one.held,
            idle: sum.idle + one.idle,
        })
    }
}
