//! The KV caches of the models that have answered lately.
//!
//! Each model has one arena of blocks that all its answers share. Between answers it stays, for
//! the beginnings that it knows, until somebody needs the memory. What is in it depends on nothing
//! but weights and tokens, so it outlives the eviction of the weights.

use std::collections::HashMap;

use provost_gpu_infer::{ChatModel, Generation, InferError, KvPool, KvUsage};
use provost_gpu_vram::{Lease, Refusal, WeightsKey};

use crate::residency::Residency;

/// Part of the free memory that a new arena may take; the rest is for other models.
const SHARE_OF_FREE: u64 = 2;

/// The arenas by model.
#[derive(Default)]
pub(crate) struct Arenas {
    arenas: HashMap<WeightsKey, Arena>,
    most_bytes: u64,
    uses: u64,
}

struct Arena {
    pool: KvPool,
    lease: Lease,
    last_use: u64,
}

/// Why an answer has no place.
pub(crate) enum NoPlace {
    /// Others hold the blocks of its model.
    Full,
    /// Memory for the blocks was refused.
    Memory(Refusal),
    /// The device failed.
    Failed(InferError),
}

impl Arenas {
    /// No arenas yet; none will be larger than `most_bytes`, unless one request needs it.
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, ..Self::default() }
    }

    /// Gives an answer its place in the arena of its model.
    pub(crate) fn seat(
        &mut self,
        residency: &mut Residency,
        key: WeightsKey,
        model: &ChatModel,
        generation: &mut Generation,
    ) -> Result<(), NoPlace> {
        let needed = model.cache_bytes(generation);
        self.retire(residency, key, needed);
        self.uses += 1;
        if !self.arenas.contains_key(&key) {
            let (bytes, lease) = self.book(residency, needed, model.decoder().kv_bytes(1))?;
            let pool = match model.decoder().kv_pool(bytes) {
                Ok(pool) => pool,
                Err(cause) => {
                    residency.release(lease);
                    tracing::error!(%cause, bytes, "the device refused a KV cache that the books allow");
                    return Err(NoPlace::Failed(InferError::Failed("the KV cache cannot be allocated".to_owned())));
                }
            };
            self.arenas.insert(key, Arena { pool, lease, last_use: 0 });
        }
        let uses = self.uses;
        match self.arenas.get_mut(&key) {
            Some(arena) if generation.take_place(&arena.pool) => {
                arena.last_use = uses;
                Ok(())
            }
            _ => Err(NoPlace::Full),
        }
    }

    /// Gives back the memory of the arena that has been unused longest. False: all are in use.
    pub(crate) fn drop_one(&mut self, residency: &mut Residency) -> bool {
        let unused = self.arenas.iter().filter(|(_, arena)| arena.pool.is_unused());
        let oldest = unused.min_by_key(|(_, arena)| arena.last_use).map(|(key, _)| *key);
        oldest.is_some_and(|key| self.remove(residency, key))
    }

    /// All arenas together.
    pub(crate) fn usage(&self) -> KvUsage {
        self.arenas.values().map(|arena| arena.pool.usage()).fold(KvUsage::default(), |sum, one| KvUsage {
            capacity: sum.capacity + one.capacity,
            held: sum.held + one.held,
            idle: sum.idle + one.idle,
        })
    }

    /// Takes an unused arena away that is too small for a request, or much smaller than a new one
    /// would be.
    fn retire(&mut self, residency: &mut Residency, key: WeightsKey, needed: u64) {
        let Some(arena) = self.arenas.get(&key).filter(|arena| arena.pool.is_unused()) else { return };
        let has = arena.pool.usage().capacity;
        if has < needed || has.saturating_mul(2) < self.wished(residency, has) {
            self.remove(residency, key);
        }
    }

    /// Books the bytes of a new arena, whole blocks: the wished ones, else at least the needed.
    fn book(&mut self, residency: &mut Residency, needed: u64, block: u64) -> Result<(u64, Lease), NoPlace> {
        let wished = self.wished(residency, 0);
        let wished = (wished - wished % block.max(1)).max(needed);
        if let Ok(lease) = residency.reserve(wished) {
            return Ok((wished, lease));
        }
        loop {
            match residency.reserve(needed) {
                Ok(lease) => return Ok((needed, lease)),
                Err(refusal) if refusal.is_temporary() && self.drop_one(residency) => {}
                Err(refusal) => return Err(NoPlace::Memory(refusal)),
            }
        }
    }

    /// What a new arena would take if `own` bytes were given back before.
    fn wished(&self, residency: &Residency, own: u64) -> u64 {
        let usage = residency.usage();
        let free = usage.capacity.saturating_sub(usage.weights + usage.reserved).saturating_add(own);
        self.most_bytes.min(free / SHARE_OF_FREE)
    }

    fn remove(&mut self, residency: &mut Residency, key: WeightsKey) -> bool {
        let Some(Arena { pool, lease, .. }) = self.arenas.remove(&key) else { return false };
        // The bytes first, then the books.
        drop(pool);
        residency.release(lease);
        true
    }
}
