//! Keys and values in blocks of one pool.
//!
//! Purpose: many requests of one model share an amount of memory that is known in advance, without
//! gaps between them, and requests that begin alike compute their beginning once. [`KvPool`] is the
//! memory, [`KvSequence`] the blocks of one request, which it gives back when it is dropped.
//! Invariants: a block is written by one sequence only, before it is full; a shared block is full
//! and never written; a sequence has all blocks it can need from its beginning, so that none is
//! ever stuck half-way for want of a block.
//! Left out: how many bytes a pool may have (`provost-gpu-serve`).

mod books;
mod pool;
mod prefix;
mod sequence;

pub(crate) use pool::KvShape;
pub use pool::{KvPool, KvUsage};
pub use sequence::KvSequence;

/// Positions of one block. Smaller ones waste less at the end of a sequence and share shorter
/// beginnings; larger ones need fewer copies where blocks do not lie in a row.
pub const BLOCK_POSITIONS: usize = 16;
