//! The blocks of one request.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::BLOCK_POSITIONS;
use super::books::Claim;
use super::pool::{LayerBlocks, Shared};
use super::prefix::PrefixHash;
use crate::kernels::kept_as;
use crate::kv_cache::{KeyValues, KvPiece};

/// The keys and values that one request has computed or found; dropping it gives its blocks back.
#[derive(Debug)]
pub struct KvSequence {
    pool: Arc<Shared>,
    /// The block of each [`BLOCK_POSITIONS`] positions.
    table: Vec<u32>,
    runs: Vec<Run>,
    len: usize,
    limit: usize,
    /// Of the full blocks so far.
    hash: PrefixHash,
    /// Tokens of the block that is being filled.
    filling: Vec<u32>,
    /// Slots of all positions where blocks do not lie in a row, for the piece of a prompt that is under way.
    gather: Option<Tensor>,
}

/// Blocks that lie in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// First position, counted in the sequence.
    position: usize,
    /// Its place in the pool.
    slot: usize,
    positions: usize,
}

impl KvSequence {
    pub(super) fn new(pool: Arc<Shared>, claim: Claim, limit: usize, hash: PrefixHash) -> Self {
        Self {
            pool,
            runs: runs(&claim.blocks),
            len: claim.reused * BLOCK_POSITIONS,
            table: claim.blocks,
            limit,
            hash,
            filling: Vec::with_capacity(BLOCK_POSITIONS),
            gather: None,
        }
    }

    fn write(&self, pool: &Tensor, new: &Tensor) -> Result<()> {
        let end = self.len + new.dim(1)?;
        for run in &self.runs {
            let from = run.position.max(self.len);
            let to = (run.position + run.positions).min(end);
            if from < to {
                let part = new.narrow(1, from - self.len, to - from)?.contiguous()?;
                pool.slice_set(&part, 1, run.slot + from - run.position)?;
            }
        }
        Ok(())
    }

    fn read(&self, pool: &Tensor, positions: usize) -> Result<Tensor> {
        match (self.runs.as_slice(), &self.gather) {
            ([run], _) => pool.narrow(1, run.slot, positions),
            (_, Some(slots)) => pool.index_select(slots, 1),
            (_, None) => candle_core::bail!("the slots of a sequence were not gathered"),
        }
    }

    /// The positions as they lie: a single new one costs less than copying all that it looks at.
    fn pieces(&self, blocks: &LayerBlocks, positions: usize) -> Result<Vec<KvPiece>> {
        let runs = self.runs.iter().filter(|run| run.position < positions);
        runs.map(|run| {
            let count = run.positions.min(positions - run.position);
            let (keys, values) = (blocks.keys.narrow(1, run.slot, count)?, blocks.values.narrow(1, run.slot, count)?);
            Ok(KvPiece { keys, values })
        })
        .collect()
    }

    fn slots(&self, positions: usize) -> Vec<u32> {
        let slots = self.runs.iter().flat_map(|run| run.slot..run.slot + run.positions);
        slots.take(positions).map(|slot| slot as u32).collect()
    }
}

impl KeyValues for KvSequence {
    fn len(&self) -> usize {
        self.len
    }

    fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<Vec<KvPiece>> {
        let new = keys.dim(1)?;
        let needed = self.len + new;
        if needed > self.limit {
            candle_core::bail!("{needed} positions do not fit a sequence of {}", self.limit)
        }
        let pool = Arc::clone(&self.pool);
        let Some(blocks) = pool.layer(layer) else { candle_core::bail!("the pool has no layer {layer}") };
        self.write(&blocks.keys, &kept_as(keys, blocks.keys.dtype())?)?;
        self.write(&blocks.values, &kept_as(values, blocks.values.dtype())?)?;
        if new == 1 {
            return self.pieces(blocks, needed);
        }
        let gathered = self.gather.as_ref().is_some_and(|slots| slots.elem_count() == needed);
        if self.runs.len() > 1 && !gathered {
            self.gather = Some(Tensor::from_vec(self.slots(needed), needed, keys.device())?);
        }
        Ok(vec![KvPiece { keys: self.read(&blocks.keys, needed)?, values: self.read(&blocks.values, needed)? }])
    }

    fn commit(&mut self, tokens: &[u32]) {
        for token in tokens {
            self.filling.push(*token);
            self.len += 1;
            if self.filling.len() == BLOCK_POSITIONS {
                self.hash = self.hash.then(&self.filling);
                self.filling.clear();
                if let Some(block) = self.table.get(self.len / BLOCK_POSITIONS - 1) {
                    self.pool.books().remember(*block, self.hash);
                }
            }
        }
    }
}

impl Drop for KvSequence {
    fn drop(&mut self) {
        self.pool.books().release(&self.table);
    }
}

fn runs(table: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, block) in table.iter().enumerate() {
        let (position, slot) = (index * BLOCK_POSITIONS, *block as usize * BLOCK_POSITIONS);
        match runs.last_mut() {
            Some(run) if run.slot + run.positions == slot => run.positions += BLOCK_POSITIONS,
            _ => runs.push(Run { position, slot, positions: BLOCK_POSITIONS }),
        }
    }
    runs
}
