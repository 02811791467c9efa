//! What candle computes on a processor more slowly than it could be: attention, its softmax, the gate of a layer, and the products
//! with weights of four and six bits.
//!
//! Purpose: candle's operations do each of the first three in several passes over fresh memory, attention of a single position on
//! one thread, and read keys and values that do not lie in a row through a copy. These do it in one pass, on all threads. Why the
//! products are here says `tiles`.
//! Invariants: nothing here panics (a panic on candle's threads leaves them unusable); each part of an output is written by one
//! thread; what is not a number stays not a number, so that damaged weights are still noticed.
//! Left out: devices other than the processor, gradients (`tune` uses operations that have them), and computing in 16 bits: keys
//! and values may be kept so, and are widened where they are read.

mod attention;
mod exp;
mod gate;
mod halves;
mod lanes;
mod softmax;
mod threads;
mod tiles;
mod wide;

pub(crate) use attention::attend_one;
pub(crate) use gate::gate;
pub(crate) use halves::kept_as;
pub(crate) use softmax::causal_softmax;
pub(crate) use tiles::{TILE_COLUMNS, TILE_ROWS, Tiles, has_tiles, products, tiles_bytes};
