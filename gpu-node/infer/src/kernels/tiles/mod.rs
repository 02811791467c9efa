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

mod kinds;
mod rounded;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result, Tensor};

use self::kinds::{Sums, Tile, TileQ4K, TileQ6K};
use self::rounded::{Block, rounded};
use super::threads::for_each;

/// Rows of a tile, side by side: one 32-bit lane of a register each.
pub(crate) const TILE_ROWS: usize = 16;
/// Columns of a tile: those of one block of ggml.
pub(crate) const TILE_COLUMNS: usize = 256;
/// Rows of activations that share what is read of the weights.
const ROWS_AT_A_TIME: usize = 32;
/// Parts of the work, for the threads to take.
const PARTS: usize = 32;

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
