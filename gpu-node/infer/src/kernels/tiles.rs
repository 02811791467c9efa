//! Products with weights of four and six bits, on processors with AVX-512 and its dot products (VNNI).
//!
//! candle's own product with `Q4_K` reads six bits a weight, and its product of a single row with `Q6_K` uses half of each
//! register. An answer's token multiplies by every weight once, so what is read is what it costs: here sixteen rows lie side by
//! side in tiles of the bits that they came with, and one thread reads them as fast as memory gives them.
//!
//! The activations are rounded to eight bits in blocks of 256 (as `Q8_K` of ggml), the products summed as integers, and scaled
//! once a tile. A row's result does not depend on the rows beside it.
//!
//! Blocks of weights: `block_q4_K` and `block_q6_K` of ggml (`ggml-common.h`).

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result, Tensor};
use half::f16;

use super::threads::for_each;

/// Rows of a tile, side by side: one 32-bit lane of a register each.
pub(crate) const TILE_ROWS: usize = 16;
/// Columns of a tile: those of one block of ggml.
pub(crate) const TILE_COLUMNS: usize = 256;
/// Bytes of a block of one row.
const Q4K_BYTES: usize = 144;
const Q6K_BYTES: usize = 210;
/// Rows of activations that share what is read of the weights.
const ROWS_AT_A_TIME: usize = 32;
/// And those of them that share the registers.
const ROWS_AT_ONCE: usize = 4;
/// Parts of the work, for the threads to take.
const PARTS: usize = 32;
/// Blocks of activations that are rounded at a time.
const BLOCKS_AT_A_TIME: usize = 16;

/// Four values of eight bits, or eight of four, for each row of a tile.
type Words = [u32; TILE_ROWS];
/// Two numbers for each row.
type Pairs = [[u8; 2]; TILE_ROWS];
/// One sum for each row.
type Sums = [f32; TILE_ROWS];

/// 16 rows of 256 columns, with 4.6 bits each. `w = d * scale * q - d_min * min`, with a scale and a min for every 32 columns.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TileQ4K {
    /// Of eight columns: the first four in the low halves of the bytes, the others in the high ones.
    values: [Words; 32],
    /// Of 64 columns: those of the first half and of the second.
    scales: [Pairs; 4],
    mins: [Pairs; 4],
    d: [f16; TILE_ROWS],
    d_min: [f16; TILE_ROWS],
}

/// 16 rows of 256 columns, with 6.6 bits each. `w = d * scale * (q - 32)`, with a scale (signed) for every 16 columns.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TileQ6K {
    /// Of 16 columns: the low four bits of the first eight and of the others, as in `TileQ4K`, and the high two bits of all: those of
    /// the first four columns lowest.
    values: [[Words; 3]; 16],
    /// Of 32 columns: those of the first half and of the second.
    scales: [Pairs; 8],
    d: [f16; TILE_ROWS],
}

/// 256 activations of a row: `x = d * q`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block {
    /// Four `i8` each.
    values: [u32; TILE_COLUMNS / 4],
    /// Sums of 16 each, as pairs of `i16`.
    sums_of_16: [u32; 8],
    /// Sums of 32 each.
    sums_of_32: [u32; 4],
    d: f32,
}

const NO_BLOCK: Block = Block { values: [0; 64], sums_of_16: [0; 8], sums_of_32: [0; 4], d: 0.0 };

/// A matrix, `[rows, columns]`: tiles of its first 16 rows, then of the next.
#[derive(Debug)]
pub(crate) struct Tiles {
    kept: Kept,
    rows: usize,
    columns: usize,
}

enum Kept {
    Q4K(Vec<TileQ4K>),
    Q6K(Vec<TileQ6K>),
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Q4K(tiles) => write!(f, "{} tiles of Q4_K", tiles.len()),
            Self::Q6K(tiles) => write!(f, "{} tiles of Q6_K", tiles.len()),
        }
    }
}

/// Whether this processor computes with tiles.
pub(crate) fn has_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::is_here();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Bytes of the tiles of a matrix; 0: it has none.
pub(crate) fn tiles_bytes(dtype: GgmlDType, rows: usize, columns: usize) -> u64 {
    if !rows.is_multiple_of(TILE_ROWS) || !columns.is_multiple_of(TILE_COLUMNS) {
        return 0;
    }
    let tile = match dtype {
        GgmlDType::Q4K => size_of::<TileQ4K>(),
        GgmlDType::Q6K => size_of::<TileQ6K>(),
        _ => 0,
    };
    (rows / TILE_ROWS).saturating_mul(columns / TILE_COLUMNS).saturating_mul(tile) as u64
}

impl Tiles {
    /// `None`: this processor, these weights or this shape have no tiles.
    ///
    /// # Errors
    /// When the weights cannot be read, or are fewer than their shape says.
    pub(crate) fn of(weight: &QTensor) -> Result<Option<Self>> {
        if !has_tiles() || !weight.device().is_cpu() {
            return Ok(None);
        }
        let Ok((rows, columns)) = weight.shape().dims2() else { return Ok(None) };
        match tiles_bytes(weight.dtype(), rows, columns) {
            0 => Ok(None),
            _ => Self::laid_out(weight.dtype(), &weight.data()?, rows, columns).map(Some),
        }
    }

    fn laid_out(dtype: GgmlDType, data: &[u8], rows: usize, columns: usize) -> Result<Self> {
        let across = columns / TILE_COLUMNS;
        let kept = match dtype {
            GgmlDType::Q4K => Kept::Q4K(laid_out(data, rows, across, TileQ4K::EMPTY, TileQ4K::take)?),
            GgmlDType::Q6K => Kept::Q6K(laid_out(data, rows, across, TileQ6K::EMPTY, TileQ6K::take)?),
            _ => candle_core::bail!("{dtype:?} has no tiles"),
        };
        Ok(Self { kept, rows, columns })
    }

    /// How the weights came.
    pub(crate) fn dtype(&self) -> GgmlDType {
        match &self.kept {
            Kept::Q4K(_) => GgmlDType::Q4K,
            Kept::Q6K(_) => GgmlDType::Q6K,
        }
    }

    /// `x W^T`.
    ///
    /// # Errors
    /// As those of [`products`].
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        let output = products(&[self], x)?.pop();
        output.ok_or_else(|| candle_core::Error::msg("a product without an output"))
    }
}

/// Takes each block of each row (`B` bytes) into its place in its tile.
fn laid_out<const B: usize, T: Copy + Send>(
    data: &[u8],
    rows: usize,
    across: usize,
    empty: T,
    take: impl Fn(&mut T, usize, &[u8; B]) + Sync,
) -> Result<Vec<T>> {
    let (blocks, rest) = data.as_chunks::<B>();
    if !rest.is_empty() || blocks.len() != rows * across {
        candle_core::bail!("{} bytes of weights for {rows} rows of {across} blocks of {B}", data.len())
    }
    let mut tiles = vec![empty; blocks.len() / TILE_ROWS];
    let parts: Vec<_> = tiles.chunks_mut(across).zip(blocks.chunks(across * TILE_ROWS)).collect();
    for_each(parts, blocks.len() * TILE_COLUMNS, |(tiles, blocks)| {
        for (row, blocks) in blocks.chunks(across).enumerate() {
            tiles.iter_mut().zip(blocks).for_each(|(tile, block)| take(tile, row, block));
        }
    });
    Ok(tiles)
}

/// Each byte's low half, and its high half.
const LOW: u32 = 0x0f0f_0f0f;
const HIGH: u32 = 0xf0f0_f0f0;
/// The lowest two bits of each byte.
const TWO: u32 = 0x0303_0303;

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four))
}

impl TileQ4K {
    const EMPTY: Self = Self {
        values: [[0; TILE_ROWS]; 32],
        scales: [[[0; 2]; TILE_ROWS]; 4],
        mins: [[[0; 2]; TILE_ROWS]; 4],
        d: [f16::ZERO; TILE_ROWS],
        d_min: [f16::ZERO; TILE_ROWS],
    };

    /// Two numbers of 16 bits, twelve bytes of eight scales and mins of six bits each, and 128 bytes of values: in the low halves of
    /// each 32 the first 32 columns of 64, in the high halves the others.
    fn take(&mut self, row: usize, block: &[u8; Q4K_BYTES]) {
        self.d[row] = f16::from_le_bytes([block[0], block[1]]);
        self.d_min[row] = f16::from_le_bytes([block[2], block[3]]);
        let packed = &block[4..16];
        for at in 0..8 {
            let (scale, min) = match at {
                0..4 => (packed[at] & 63, packed[at + 4] & 63),
                _ => (packed[at + 4] & 15 | packed[at - 4] >> 6 << 4, packed[at + 4] >> 4 | packed[at] >> 6 << 4),
            };
            self.scales[at / 2][row][at % 2] = scale;
            self.mins[at / 2][row][at % 2] = min;
        }
        for (values, bytes) in self.values.chunks_mut(8).zip(block[16..].chunks(32)) {
            let mut words = words(bytes);
            for at in 0..4 {
                let (Some(first), Some(second)) = (words.next(), words.next()) else { return };
                values[at][row] = first & LOW | (second & LOW) << 4;
                values[at + 4][row] = (first & HIGH) >> 4 | second & HIGH;
            }
        }
    }
}

impl TileQ6K {
    const EMPTY: Self =
        Self { values: [[[0; TILE_ROWS]; 3]; 16], scales: [[[0; 2]; TILE_ROWS]; 8], d: [f16::ZERO; TILE_ROWS] };

    /// 128 bytes of low halves, 64 of high bits, 16 scales and a number of 16 bits. Of 128 columns, 64 bytes hold the low halves: those
    /// of the first and second 32 in the low bits, of the third and fourth in the high bits; and 32 bytes the high bits of all, those
    /// of the first 32 lowest.
    fn take(&mut self, row: usize, block: &[u8; Q6K_BYTES]) {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(16);
        self.d[row] = f16::from_le_bytes([d[0], d[1]]);
        for (at, scale) in scales.iter().enumerate() {
            self.scales[at / 2][row][at % 2] = *scale;
        }
        for ((values, low), high) in self.values.chunks_mut(8).zip(low.chunks(64)).zip(high.chunks(32)) {
            let (low, other_low) = low.split_at(32);
            for (at, ((low, other_low), high)) in words(low).zip(words(other_low)).zip(words(high)).enumerate() {
                let quarters = [low & LOW, other_low & LOW, (low & HIGH) >> 4, (other_low & HIGH) >> 4];
                for (quarter, low) in quarters.into_iter().enumerate() {
                    let words = &mut values[2 * quarter + at / 4];
                    let four = at % 4;
                    words[four / 2][row] |= low << (four % 2 * 4);
                    words[2][row] |= (high >> (2 * quarter) & TWO) << (2 * four);
                }
            }
        }
    }
}

/// `x W^T` for each of some matrices with as many columns as `x`, `[rows, columns]`; all threads are asked once.
///
/// # Errors
/// When `x` is not `f32`, or has other columns.
pub(crate) fn products(matrices: &[&Tiles], x: &Tensor) -> Result<Vec<Tensor>> {
    let (rows, columns) = x.dims2()?;
    if matrices.iter().any(|tiles| tiles.columns != columns) {
        candle_core::bail!("{columns} columns by weights of others")
    }
    let x: Vec<f32> = x.flatten_all()?.to_vec1()?;
    let blocks = rounded(&x, rows, columns);
    let mut outputs: Vec<Vec<f32>> = matrices.iter().map(|tiles| vec![0.0; rows * tiles.rows]).collect();
    let mut parts = Vec::new();
    for (tiles, output) in matrices.iter().zip(&mut outputs) {
        parts.extend(parts_of(tiles, output));
    }
    let outputs_of_row: usize = matrices.iter().map(|tiles| tiles.rows).sum();
    for_each(parts, rows * columns * outputs_of_row, |part| part.compute(&blocks, rows));
    let sized = outputs.into_iter().zip(matrices);
    sized.map(|(output, tiles)| Tensor::from_vec(output, (rows, tiles.rows), &Device::Cpu)).collect()
}

/// What one thread computes at a time: some outputs of some rows.
struct Part<'a> {
    tiles: &'a Tiles,
    first_row: usize,
    /// In tiles.
    first_output: usize,
    /// Of each row.
    outputs: Vec<&'a mut [f32]>,
}

fn parts_of<'a>(tiles: &'a Tiles, output: &'a mut [f32]) -> Vec<Part<'a>> {
    let tiles_each = (tiles.rows / TILE_ROWS).div_ceil(PARTS);
    let mut parts = Vec::with_capacity(PARTS);
    for (block, rows) in output.chunks_mut(tiles.rows * ROWS_AT_A_TIME).enumerate() {
        let mut rows: Vec<_> = rows.chunks_mut(tiles.rows).map(|row| row.chunks_mut(tiles_each * TILE_ROWS)).collect();
        for number in 0.. {
            let outputs: Vec<_> = rows.iter_mut().filter_map(Iterator::next).collect();
            if outputs.is_empty() {
                break;
            }
            let (first_row, first_output) = (block * ROWS_AT_A_TIME, number * tiles_each);
            parts.push(Part { tiles, first_row, first_output, outputs });
        }
    }
    parts
}

impl Part<'_> {
    /// `blocks`: of all rows, those of the first 256 columns first.
    fn compute(&mut self, blocks: &[Block], rows: usize) {
        let across = self.tiles.columns / TILE_COLUMNS;
        let mut sums = [[0.0; TILE_ROWS]; ROWS_AT_A_TIME];
        let count = self.outputs.len().min(ROWS_AT_A_TIME);
        let outputs = self.outputs.first().map_or(0, |outputs| outputs.len() / TILE_ROWS);
        for number in 0..outputs {
            let sums = &mut sums[..count];
            sums.fill([0.0; TILE_ROWS]);
            let from = (self.first_output + number) * across;
            let blocks = blocks.chunks_exact(rows).filter_map(|rows| rows.get(self.first_row..self.first_row + count));
            match &self.tiles.kept {
                Kept::Q4K(tiles) => add(tiles.get(from..from + across).unwrap_or_default(), blocks, sums),
                Kept::Q6K(tiles) => add(tiles.get(from..from + across).unwrap_or_default(), blocks, sums),
            }
            for (outputs, sums) in self.outputs.iter_mut().zip(sums) {
                if let Some(outputs) = outputs.as_chunks_mut().0.get_mut(number) {
                    *outputs = *sums;
                }
            }
        }
    }
}

/// Adds the products of tiles that lie side by side with the blocks of some rows.
#[allow(unsafe_code, reason = "a function for processors that have a feature is called by code for those that may not")]
fn add<'a, T: Tile>(tiles: &[T], blocks: impl Iterator<Item = &'a [Block]>, sums: &mut [Sums]) {
    #[cfg(target_arch = "x86_64")]
    if x86::is_here() {
        // SAFETY: the processor has all that the function asks for.
        unsafe { x86::add(tiles, blocks, sums) };
        return;
    }
    add_anywhere(tiles, blocks, sums);
}

fn add_anywhere<'a, T: Tile>(tiles: &[T], blocks: impl Iterator<Item = &'a [Block]>, sums: &mut [Sums]) {
    for (tile, blocks) in tiles.iter().zip(blocks) {
        for (block, sums) in blocks.iter().zip(&mut *sums) {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = tile.add_row(row, block, *sum);
            }
        }
    }
}

/// Of both kinds.
trait Tile {
    /// The sum and one row's product with a block: what the others have to come to, to the bit.
    fn add_row(&self, row: usize, block: &Block, sum: f32) -> f32;

    /// # Safety
    /// [`x86::is_here`].
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "a method for processors that have a feature")]
    unsafe fn add_rows<const N: usize>(&self, blocks: &[Block; N], sums: &mut [Sums; N]);
}

impl Block {
    /// Four columns as they are multiplied.
    fn four(&self, at: usize) -> [i32; 4] {
        self.values[at].to_le_bytes().map(|value| i32::from(value.cast_signed()))
    }
}

fn dot(weights: u32, activations: [i32; 4]) -> i32 {
    weights.to_le_bytes().iter().zip(activations).map(|(weight, activation)| i32::from(*weight) * activation).sum()
}

/// Both numbers of 16 bits of a pair.
fn halves(pair: u32) -> [i32; 2] {
    [i32::from(pair as u16 as i16), i32::from((pair >> 16) as u16 as i16)]
}

impl Tile for TileQ4K {
    fn add_row(&self, row: usize, block: &Block, sum: f32) -> f32 {
        let (mut total, mut offset) = (0, 0);
        for (half, values) in self.values.chunks(4).enumerate() {
            let products = values.iter().enumerate().map(|(at, words)| {
                let first = 8 * half + 2 * at;
                dot(words[row] & LOW, block.four(first)) + dot(words[row] >> 4 & LOW, block.four(first + 1))
            });
            total += i32::from(self.scales[half / 2][row][half % 2]) * products.sum::<i32>();
            offset += i32::from(self.mins[half / 2][row][half % 2]) * halves(block.sums_of_32[half / 2])[half % 2];
        }
        let sum = (total as f32).mul_add(self.d[row].to_f32() * block.d, sum);
        (-(offset as f32)).mul_add(self.d_min[row].to_f32() * block.d, sum)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    #[allow(unsafe_code, reason = "a method for processors that have a feature")]
    unsafe fn add_rows<const N: usize>(&self, blocks: &[Block; N], sums: &mut [Sums; N]) {
        x86::add_q4k(self, blocks, sums);
    }
}

impl Tile for TileQ6K {
    fn add_row(&self, row: usize, block: &Block, sum: f32) -> f32 {
        let mut total = 0;
        for (at, [low, other_low, high]) in self.values.iter().enumerate() {
            let (low, other_low, high) = (low[row], other_low[row], high[row]);
            let fours = [low & LOW, low >> 4 & LOW, other_low & LOW, other_low >> 4 & LOW];
            let products = fours
                .into_iter()
                .enumerate()
                .map(|(four, low)| dot(low | (high >> (2 * four) & TWO) << 4, block.four(4 * at + four)));
            let centred = products.sum::<i32>() - 32 * halves(block.sums_of_16[at / 2])[at % 2];
            total += i32::from(self.scales[at / 2][row][at % 2].cast_signed()) * centred;
        }
        (total as f32).mul_add(self.d[row].to_f32() * block.d, sum)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    #[allow(unsafe_code, reason = "a method for processors that have a feature")]
    unsafe fn add_rows<const N: usize>(&self, blocks: &[Block; N], sums: &mut [Sums; N]) {
        x86::add_q6k(self, blocks, sums);
    }
}

/// The rows of `x` in blocks: those of the first 256 columns of all rows, then of the next.
fn rounded(x: &[f32], rows: usize, columns: usize) -> Vec<Block> {
    let across = columns / TILE_COLUMNS;
    let (given, _) = x.as_chunks::<TILE_COLUMNS>();
    let mut blocks = vec![NO_BLOCK; rows * across];
    let parts: Vec<_> = blocks.chunks_mut(BLOCKS_AT_A_TIME).enumerate().collect();
    for_each(parts, x.len(), |(part, blocks)| {
        for (number, block) in blocks.iter_mut().enumerate() {
            let at = *part * BLOCKS_AT_A_TIME + number;
            if let Some(x) = given.get(at % rows * across + at / rows) {
                round(x, block);
            }
        }
    });
    blocks
}

#[allow(unsafe_code, reason = "a function for processors that have a feature is called by code for those that may not")]
fn round(x: &[f32; TILE_COLUMNS], block: &mut Block) {
    #[cfg(target_arch = "x86_64")]
    if x86::is_here() {
        // SAFETY: the processor has all that the function asks for.
        unsafe { x86::round(x, block) };
        return;
    }
    round_anywhere(x, block);
}

/// The largest becomes 127 (or -127). What is not a number makes the block's scale none, and so whatever it is multiplied by.
fn round_anywhere(x: &[f32; TILE_COLUMNS], block: &mut Block) {
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
fn scale(largest: f32) -> (f32, f32) {
    let d = largest / 127.0;
    (d, if d >= f32::MIN_POSITIVE { d.recip() } else { 0.0 })
}

fn keep_sums(sums: &[i16; 16], block: &mut Block) {
    let pair = |first: i16, second: i16| u32::from(first.cast_unsigned()) | u32::from(second.cast_unsigned()) << 16;
    for (word, [a, b]) in block.sums_of_16.iter_mut().zip(sums.as_chunks().0) {
        *word = pair(*a, *b);
    }
    for (word, [a, b, c, d]) in block.sums_of_32.iter_mut().zip(sums.as_chunks().0) {
        *word = pair(a + b, c + d);
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the compiler writes no dot products of bytes by itself")]
mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{Block, Pairs, ROWS_AT_ONCE, Sums, TILE_COLUMNS, TILE_ROWS, Tile, TileQ4K, TileQ6K, Words};

    pub(super) fn is_here() -> bool {
        use std::arch::is_x86_feature_detected as has;
        has!("avx512f") && has!("avx512bw") && has!("avx512vnni")
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn add<'a, T: Tile>(tiles: &[T], blocks: impl Iterator<Item = &'a [Block]>, sums: &mut [Sums]) {
        for (tile, blocks) in tiles.iter().zip(blocks) {
            for (blocks, sums) in blocks.chunks(ROWS_AT_ONCE).zip(sums.chunks_mut(ROWS_AT_ONCE)) {
                match blocks.len() {
                    4 => add_rows::<T, 4>(tile, blocks, sums),
                    3 => add_rows::<T, 3>(tile, blocks, sums),
                    2 => add_rows::<T, 2>(tile, blocks, sums),
                    _ => add_rows::<T, 1>(tile, blocks, sums),
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn add_rows<T: Tile, const N: usize>(tile: &T, blocks: &[Block], sums: &mut [Sums]) {
        if let (Ok(blocks), Ok(sums)) = (blocks.try_into(), sums.try_into()) {
            // SAFETY: this function asks for the same features.
            unsafe { tile.add_rows::<N>(blocks, sums) };
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    pub(super) fn add_q4k<const N: usize>(tile: &TileQ4K, blocks: &[Block; N], sums: &mut [Sums; N]) {
        let (mut totals, mut offsets) = ([_mm512_setzero_si512(); N], [_mm512_setzero_si512(); N]);
        for pair in 0..4 {
            let [first, second] = halves_of(_mm512_cvtepu8_epi16(pairs(&tile.scales[pair])));
            scale(&mut totals, dots_q4k(tile, blocks, 2 * pair), first);
            scale(&mut totals, dots_q4k(tile, blocks, 2 * pair + 1), second);
            let mins = _mm512_cvtepu8_epi16(pairs(&tile.mins[pair]));
            for (offset, block) in offsets.iter_mut().zip(blocks) {
                *offset = _mm512_dpwssd_epi32(*offset, mins, all(block.sums_of_32[pair]));
            }
        }
        let (d, d_min) = (floats(&tile.d), floats(&tile.d_min));
        for (((sums, total), offset), block) in sums.iter_mut().zip(totals).zip(offsets).zip(blocks) {
            let of_block = _mm512_set1_ps(block.d);
            let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_mul_ps(d, of_block), load(sums));
            store(sums, _mm512_fnmadd_ps(_mm512_cvtepi32_ps(offset), _mm512_mul_ps(d_min, of_block), sum));
        }
    }

    /// Of 32 columns. Kept apart, so that the compiler has the sums in registers.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn dots_q4k<const N: usize>(tile: &TileQ4K, blocks: &[Block; N], number: usize) -> [__m512i; N] {
        let low = _mm512_set1_epi8(15);
        let mut dots = [_mm512_setzero_si512(); N];
        for at in 4 * number..4 * number + 4 {
            let values = words(&tile.values[at]);
            let (some, others) = (_mm512_and_si512(values, low), _mm512_and_si512(_mm512_srli_epi16::<4>(values), low));
            for (dots, block) in dots.iter_mut().zip(blocks) {
                *dots = _mm512_dpbusd_epi32(*dots, some, all(block.values[2 * at]));
                *dots = _mm512_dpbusd_epi32(*dots, others, all(block.values[2 * at + 1]));
            }
        }
        dots
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    pub(super) fn add_q6k<const N: usize>(tile: &TileQ6K, blocks: &[Block; N], sums: &mut [Sums; N]) {
        let (mut totals, mut offsets) = ([_mm512_setzero_si512(); N], [_mm512_setzero_si512(); N]);
        for pair in 0..8 {
            let scales = _mm512_cvtepi8_epi16(pairs(&tile.scales[pair]));
            let [first, second] = halves_of(scales);
            scale(&mut totals, dots_q6k(tile, blocks, 2 * pair), first);
            scale(&mut totals, dots_q6k(tile, blocks, 2 * pair + 1), second);
            for (offset, block) in offsets.iter_mut().zip(blocks) {
                *offset = _mm512_dpwssd_epi32(*offset, scales, all(block.sums_of_16[pair]));
            }
        }
        let d = floats(&tile.d);
        for (((sums, total), offset), block) in sums.iter_mut().zip(totals).zip(offsets).zip(blocks) {
            // Values are counted from 32 below zero.
            let centred = _mm512_sub_epi32(total, _mm512_slli_epi32::<5>(offset));
            let scale = _mm512_mul_ps(d, _mm512_set1_ps(block.d));
            store(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(centred), scale, load(sums)));
        }
    }

    /// Of 16 columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn dots_q6k<const N: usize>(tile: &TileQ6K, blocks: &[Block; N], number: usize) -> [__m512i; N] {
        let [a, b, top] = [0, 1, 2].map(|part| words(&tile.values[number][part]));
        let low = _mm512_set1_epi8(15);
        let fours = [
            six_bits(_mm512_and_si512(a, low), _mm512_slli_epi16::<4>(top)),
            six_bits(_mm512_and_si512(_mm512_srli_epi16::<4>(a), low), _mm512_slli_epi16::<2>(top)),
            six_bits(_mm512_and_si512(b, low), top),
            six_bits(_mm512_and_si512(_mm512_srli_epi16::<4>(b), low), _mm512_srli_epi16::<2>(top)),
        ];
        let mut dots = [_mm512_setzero_si512(); N];
        for (dots, block) in dots.iter_mut().zip(blocks) {
            for (at, four) in fours.into_iter().enumerate() {
                *dots = _mm512_dpbusd_epi32(*dots, four, all(block.values[4 * number + at]));
            }
        }
        dots
    }

    /// The low four bits of each byte, and above them two of those of `top`.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn six_bits(low: __m512i, top: __m512i) -> __m512i {
        /// `(top & which) | low`, by the table of a function of three bits.
        const AND_OR: i32 = 0b1110_1010;
        _mm512_ternarylogic_epi32::<AND_OR>(top, _mm512_set1_epi8(0x30), low)
    }

    /// Both numbers of each pair, with their signs.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn halves_of(pairs: __m512i) -> [__m512i; 2] {
        [_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs)), _mm512_srai_epi32::<16>(pairs)]
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn scale<const N: usize>(totals: &mut [__m512i; N], dots: [__m512i; N], scale: __m512i) {
        for (total, dots) in totals.iter_mut().zip(dots) {
            *total = _mm512_add_epi32(*total, _mm512_mullo_epi32(dots, scale));
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn round(x: &[f32; TILE_COLUMNS], block: &mut Block) {
        let (sixteens, _) = x.as_chunks::<16>();
        let (mut largest, mut is_none) = (_mm512_setzero_ps(), 0);
        for x in sixteens {
            let x = load(x);
            is_none |= _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
            largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
        }
        let (d, times) = super::scale(if is_none == 0 { _mm512_reduce_max_ps(largest) } else { f32::NAN });
        let times = _mm512_set1_ps(times);
        let mut sums = [0; 16];
        let (fours, _) = block.values.as_chunks_mut::<4>();
        for ((x, words), sum) in sixteens.iter().zip(fours).zip(&mut sums) {
            let values = _mm512_cvtps_epi32(_mm512_mul_ps(load(x), times));
            // SAFETY: four words are the 16 bytes that are written, and need not be aligned.
            unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(values)) };
            *sum = _mm512_reduce_add_epi32(values) as i16;
        }
        block.d = d;
        super::keep_sums(&sums, block);
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn words(words: &Words) -> __m512i {
        const { assert!(size_of::<Words>() == size_of::<__m512i>()) };
        // SAFETY: as many bytes are read as there are, and they need not be aligned.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn pairs(pairs: &Pairs) -> __m256i {
        const { assert!(size_of::<Pairs>() == size_of::<__m256i>()) };
        // SAFETY: as many bytes are read as there are, and they need not be aligned.
        unsafe { _mm256_loadu_si256(pairs.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn floats(halves: &[f16; TILE_ROWS]) -> __m512 {
        const { assert!(size_of::<[f16; TILE_ROWS]>() == size_of::<__m256i>()) };
        // SAFETY: as many bytes are read as there are, and they need not be aligned.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(floats: &[f32; 16]) -> __m512 {
        // SAFETY: 16 floats are read, and they need not be aligned.
        unsafe { _mm512_loadu_ps(floats.as_ptr()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(floats: &mut [f32; 16], values: __m512) {
        // SAFETY: 16 floats are written, and they need not be aligned.
        unsafe { _mm512_storeu_ps(floats.as_mut_ptr(), values) };
    }

    /// The same word for each row.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn all(word: u32) -> __m512i {
        _mm512_set1_epi32(word.cast_signed())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::borrow::Cow;

    use candle_core::quantized::QStorage;
    use rand::{RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const KINDS: [(GgmlDType, usize); 2] = [(GgmlDType::Q4K, Q4K_BYTES), (GgmlDType::Q6K, Q6K_BYTES)];

    /// Blocks with every scale and value there may be, and what candle makes of them.
    fn weights(dtype: GgmlDType, size: usize, rows: usize, columns: usize) -> (Vec<u8>, QTensor) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut data = vec![0; rows * columns / TILE_COLUMNS * size];
        random.fill_bytes(&mut data);
        let d = || f16::from_f32(0.01 + random.next_u32() as f32 / u32::MAX as f32).to_le_bytes();
        for (block, d) in data.chunks_mut(size).zip(std::iter::repeat_with(d)) {
            match dtype {
                GgmlDType::Q4K => block[..4].copy_from_slice(&[d[0], d[1], d[1], d[1] & 0x3f]),
                _ => block[208..].copy_from_slice(&d),
            }
        }
        let storage = QStorage::from_data(Cow::Owned(data.clone()), &Device::Cpu, dtype).unwrap();
        (data, QTensor::new(storage, (rows, columns)).unwrap())
    }

    fn activations(rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|at| (at as f32 * 0.37).sin() * (1.0 + (at / TILE_COLUMNS) as f32)).collect()
    }

    /// What a block stands for.
    fn unrounded(block: &Block) -> Vec<f64> {
        let values = block.values.iter().flat_map(|word| word.to_le_bytes());
        values.map(|value| f64::from(value.cast_signed()) * f64::from(block.d)).collect()
    }

    fn multiplied(tiles: &Tiles, x: &[f32], rows: usize) -> Vec<f32> {
        let x = Tensor::from_vec(x.to_vec(), (rows, tiles.columns), &Device::Cpu).unwrap();
        let outputs = products(&[tiles], &x).unwrap();
        outputs[0].flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn products_are_those_of_the_weights_as_candle_reads_them() {
        for (dtype, size) in KINDS {
            // More outputs than fit in equal parts, and rows that fill no group.
            for (outputs, columns, rows) in [(16, 256, 1), (560, 512, 3), (48, 768, 39)] {
                let (data, weights) = weights(dtype, size, outputs, columns);
                let tiles = Tiles::laid_out(dtype, &data, outputs, columns).unwrap();
                let x = activations(rows, columns);
                let found = multiplied(&tiles, &x, rows);
                let weights: Vec<f32> =
                    weights.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let blocks = rounded(&x, rows, columns);
                for (row, found) in found.chunks(outputs).enumerate() {
                    let x: Vec<f64> = blocks.chunks(rows).flat_map(|blocks| unrounded(&blocks[row])).collect();
                    for (found, weights) in found.iter().zip(weights.chunks(columns)) {
                        let each = || x.iter().zip(weights).map(|(x, weight)| x * f64::from(*weight));
                        let (expected, size): (f64, f64) = (each().sum(), each().map(f64::abs).sum());
                        let off = (f64::from(*found) - expected).abs();
                        assert!(off <= 1e-6 * size, "{dtype:?} {outputs} x {columns}, row {row}: {found}, {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn all_processors_come_to_the_same_to_the_bit() {
        let (rows, columns) = (7, 512);
        let x = activations(rows, columns);
        let blocks = rounded(&x, rows, columns);
        let mut same = vec![NO_BLOCK; 1];
        for (x, block) in x.as_chunks().0.iter().zip([0, rows, 1, 1 + rows]) {
            round_anywhere(x, &mut same[0]);
            assert_eq!((same[0].values, same[0].d.to_bits()), (blocks[block].values, blocks[block].d.to_bits()));
            assert_eq!((same[0].sums_of_16, same[0].sums_of_32), (blocks[block].sums_of_16, blocks[block].sums_of_32));
        }
        for (dtype, size) in KINDS {
            let (data, _) = weights(dtype, size, TILE_ROWS, columns);
            let tiles = Tiles::laid_out(dtype, &data, TILE_ROWS, columns).unwrap();
            let mut sums = vec![[0.0; TILE_ROWS]; rows];
            match &tiles.kept {
                Kept::Q4K(tiles) => add_anywhere(tiles, blocks.chunks(rows), &mut sums),
                Kept::Q6K(tiles) => add_anywhere(tiles, blocks.chunks(rows), &mut sums),
            }
            let bits = |sums: &[f32]| -> Vec<u32> { sums.iter().map(|sum| sum.to_bits()).collect() };
            assert_eq!(bits(sums.as_flattened()), bits(&multiplied(&tiles, &x, rows)), "{dtype:?}");
            // And a row alone to the same as among others.
            let alone = multiplied(&tiles, &x[5 * columns..6 * columns], 1);
            assert_eq!(bits(&sums[5]), bits(&alone), "{dtype:?}");
        }
    }

    #[test]
    fn activations_are_rounded_to_a_254th_and_no_number_stays_none() {
        let mut block = NO_BLOCK;
        let mut x = [0.0; TILE_COLUMNS];
        round(&x, &mut block);
        assert_eq!((block.values, block.d.to_bits()), ([0; 64], 0), "nothing");
        (x[3], x[100], x[255]) = (-2.0, 1.5, 0.001);
        round(&x, &mut block);
        for (x, found) in x.iter().zip(unrounded(&block)) {
            assert!((f64::from(*x) - found).abs() <= 2.0 / 254.0 + 1e-7, "{x} {found}");
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            x[77] = odd;
            for (dtype, size) in KINDS {
                let (data, _) = weights(dtype, size, TILE_ROWS, TILE_COLUMNS);
                let tiles = Tiles::laid_out(dtype, &data, TILE_ROWS, TILE_COLUMNS).unwrap();
                assert!(multiplied(&tiles, &x, 1).iter().all(|y| !y.is_finite()), "{odd} {dtype:?}");
                let mut same = NO_BLOCK;
                round_anywhere(&x, &mut same);
                assert!(!same.d.is_finite(), "{odd}");
            }
        }
        // So small that their scale has no inverse.
        x = [f32::MIN_POSITIVE / 4.0; TILE_COLUMNS];
        round(&x, &mut block);
        assert_eq!(block.values, [0; 64]);
    }

    #[test]
    fn what_does_not_belong_together_is_an_error() {
        let (data, _) = weights(GgmlDType::Q4K, Q4K_BYTES, 16, 512);
        let message = |found: Result<Tiles>| found.err().unwrap().to_string();
        assert!(message(Tiles::laid_out(GgmlDType::Q4K, &data[1..], 16, 512)).contains("4607 bytes of weights"));
        assert!(message(Tiles::laid_out(GgmlDType::Q4K, &data, 32, 512)).contains("32 rows"));
        assert!(message(Tiles::laid_out(GgmlDType::Q5K, &data, 16, 512)).contains("no tiles"));
        let tiles = Tiles::laid_out(GgmlDType::Q4K, &data, 16, 512).unwrap();
        let x = Tensor::from_vec(activations(2, 256), (2, 256), &Device::Cpu).unwrap();
        assert!(products(&[&tiles], &x).unwrap_err().to_string().contains("256 columns"));
    }
}
