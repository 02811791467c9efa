//! The memory of a pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Result, Tensor};

use super::BLOCK_POSITIONS;
use super::books::BlockBooks;
use super::prefix::PrefixHash;
use super::sequence::KvSequence;
use crate::device::Place;

/// The keys and values of all requests of one model; cheap to clone, one memory.
#[derive(Clone, Debug)]
pub struct KvPool(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    layers: Vec<LayerBlocks>,
    books: Mutex<BlockBooks>,
    block_bytes: u64,
    /// Last: the tensors are in it.
    _place: Place,
}

/// Keys and values of a layer, each `[kv_heads, blocks * BLOCK_POSITIONS, head_dim]`.
#[derive(Debug)]
pub(super) struct LayerBlocks {
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
}

/// What a pool holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUsage {
    /// Of the whole pool.
    pub capacity: u64,
    /// In blocks that requests hold.
    pub held: u64,
    /// In blocks that nobody holds and whose content is kept for requests that begin so.
    pub idle: u64,
}

/// The shape of one position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// `f32`, or on the processor `f16`.
    pub(crate) dtype: DType,
}

impl KvShape {
    /// Bytes of keys and values of one position.
    pub(crate) fn position_bytes(self) -> u64 {
        (2 * self.layers * self.kv_heads * self.head_dim * self.dtype.size_in_bytes()) as u64
    }

    pub(crate) fn block_bytes(self) -> u64 {
        self.position_bytes() * BLOCK_POSITIONS as u64
    }
}

impl KvPool {
    /// A pool of as many blocks as fit `capacity_bytes`, on the device of a model.
    pub(crate) fn new(shape: KvShape, capacity_bytes: u64, beside: &Place) -> Result<Self> {
        let blocks = u32::try_from(capacity_bytes / shape.block_bytes().max(1)).unwrap_or(u32::MAX);
        let slots = (shape.kv_heads, blocks as usize * BLOCK_POSITIONS, shape.head_dim);
        let place = beside.another()?;
        let layers = (0..shape.layers)
            .map(|_| {
                Ok(LayerBlocks { keys: place.zeros(slots, shape.dtype)?, values: place.zeros(slots, shape.dtype)? })
            })
            .collect::<Result<_>>()?;
        let books = Mutex::new(BlockBooks::new(blocks));
        Ok(Self(Arc::new(Shared { layers, books, block_bytes: shape.block_bytes(), _place: place })))
    }

    /// Room for a request of at most `positions` that begins with `prompt`. The front of the prompt
    /// that the pool still holds, for a request of the same `scope`, need not be computed again:
    /// [`KeyValues::len`](crate::KeyValues::len) says how much that is, never all of it. None: not enough blocks are free.
    pub fn sequence(&self, scope: &[u8], prompt: &[u32], positions: usize) -> Option<KvSequence> {
        let root = PrefixHash::root(scope);
        // Without its last token computed there would be nothing to go on from.
        let reusable = prompt.len().saturating_sub(1);
        let beginning = PrefixHash::of_blocks(root, prompt.get(..reusable).unwrap_or_default());
        let claim = self.0.books().claim(&beginning, positions.div_ceil(BLOCK_POSITIONS))?;
        let hash = match claim.reused {
            0 => root,
            reused => beginning.get(reused - 1).copied().unwrap_or(root),
        };
        Some(KvSequence::new(Arc::clone(&self.0), claim, positions, hash))
    }

    /// True when a request of `positions` would fit if nobody else held a block.
    pub fn could_hold(&self, positions: usize) -> bool {
        positions.div_ceil(BLOCK_POSITIONS) <= self.0.books().total()
    }

    /// True when no request holds a block.
    pub fn is_unused(&self) -> bool {
        self.0.books().held() == 0
    }

    /// What is held and what is kept.
    pub fn usage(&self) -> KvUsage {
        let books = self.0.books();
        let bytes = |blocks: usize| blocks as u64 * self.0.block_bytes;
        KvUsage { capacity: bytes(books.total()), held: bytes(books.held()), idle: bytes(books.idle()) }
    }
}

impl Shared {
    pub(super) fn layer(&self, layer: usize) -> Option<&LayerBlocks> {
        self.layers.get(layer)
    }

    pub(super) fn books(&self) -> MutexGuard<'_, BlockBooks> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
