//! Activations, rounded to eight bits.

use super::TILE_COLUMNS;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::kernels::threads::for_each;

/// Blocks that are rounded at a time.
const AT_A_TIME: usize = 16;

/// 256 activations of a row: `x = d * q`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Block {
    /// Four `i8` each.
    pub(super) values: [u32; TILE_COLUMNS / 4],
    /// Sums of 16 each, as pairs of `i16`.
    pub(super) sums_of_16: [u32; 8],
    /// Sums of 32 each.
    pub(super) sums_of_32: [u32; 4],
    pub(super) d: f32,
}

pub(super) const NO_BLOCK: Block = Block { values: [0; 64], sums_of_16: [0; 8], sums_of_32: [0; 4], d: 0.0 };

impl Block {
    /// Four columns as they are multiplied.
    pub(super) fn four(&self, at: usize) -> [i32; 4] {
        self.values[at].to_le_bytes().map(|value| i32::from(value.cast_signed()))
    }
}

/// Both numbers of 16 bits of a pair.
pub(super) fn halves(pair: u32) -> [i32; 2] {
    [i32::from(pair as u16 as i16), i32::from((pair >> 16) as u16 as i16)]
}

/// The rows of `x` in blocks: those of the first 256 columns of all rows, then of the next.
pub(super) fn rounded(x: &[f32], rows: usize, columns: usize) -> Vec<Block> {
    let across = columns / TILE_COLUMNS;
    let (given, _) = x.as_chunks::<TILE_COLUMNS>();
    let mut blocks = vec![NO_BLOCK; rows * across];
    let parts: Vec<_> = blocks.chunks_mut(AT_A_TIME).enumerate().collect();
    for_each(parts, x.len(), |(part, blocks)| {
        for (number, block) in blocks.iter_mut().enumerate() {
            let at = *part * AT_A_TIME + number;
            if let Some(x) = given.get(at % rows * across + at / rows) {
                round(x, block);
            }
        }
    });
    blocks
}

#[allow(unsafe_code, reason = "a function for processors that have a feature is called by code for those that may not")]
pub(super) fn round(x: &[f32; TILE_COLUMNS], block: &mut Block) {
    #[cfg(target_arch = "x86_64")]
    if x86::is_here() {
        // SAFETY: the processor has all that the function asks for.
        unsafe { x86::round(x, block) };
        return;
    }
    round_anywhere(x, block);
}

/// The largest becomes 127 (or -127). What is not a number makes the block's scale none, and so whatever it is multiplied by.
pub(super) fn round_anywhere(x: &[f32; TILE_COLUMNS], block: &mut Block) {
    let is_number = x.iter().all(|x| !x.is_nan());
    let largest = if is_number { x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs())) } else { f32::NAN };
    let (d, times) = scale(largest);
    let values: [i8; TILE_COLUMNS] = std::array::from_fn(|at| (x[at] * times).round_ties_even() as i8);
    for (word, four) in block.values.iter_mut().zip(values.as_chunks().0) {
        *word = u32::from_le_bytes(four.map(i8::cast_unsigned));
    }
    let mut sums = [0; 16];
    for (sum, values) in sums.iter_mut().zip(values.chunks(16)) {
        *sum = values.iter().map(|value| i16::from(*value)).sum();
    }
    block.d = d;
    keep_sums(&sums, block);
}

/// A block's scale, and what its activations are multiplied by.
pub(super) fn scale(largest: f32) -> (f32, f32) {
    let d = largest / 127.0;
    (d, if d >= f32::MIN_POSITIVE { d.recip() } else { 0.0 })
}

pub(super) fn keep_sums(sums: &[i16; 16], block: &mut Block) {
    let pair = |first: i16, second: i16| u32::from(first.cast_unsigned()) | u32::from(second.cast_unsigned()) << 16;
    for (word, [a, b]) in block.sums_of_16.iter_mut().zip(sums.as_chunks().0) {
        *word = pair(*a, *b);
    }
    for (word, [a, b, c, d]) in block.sums_of_32.iter_mut().zip(sums.as_chunks().0) {
        *word = pair(a + b, c + d);
    }
}
