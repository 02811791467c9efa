//! Tiles of both kinds of weights: how they are laid out, and what a row of one comes to.

use half::f16;

use super::TILE_ROWS;
use super::rounded::{Block, halves};
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Bytes of a block of one row.
pub(super) const Q4K_BYTES: usize = 144;
pub(super) const Q6K_BYTES: usize = 210;

/// Four values of eight bits, or eight of four, for each row of a tile.
pub(super) type Words = [u32; TILE_ROWS];
/// Two numbers for each row.
pub(super) type Pairs = [[u8; 2]; TILE_ROWS];
/// One sum for each row.
pub(super) type Sums = [f32; TILE_ROWS];

/// 16 rows of 256 columns, with 4.6 bits each. `w = d * scale * q - d_min * min`, with a scale and a min for every 32 columns.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct TileQ4K {
    /// Of eight columns: the first four in the low halves of the bytes, the others in the high ones.
    pub(super) values: [Words; 32],
    /// Of 64 columns: those of the first half and of the second.
    pub(super) scales: [Pairs; 4],
    pub(super) mins: [Pairs; 4],
    pub(super) d: [f16; TILE_ROWS],
    pub(super) d_min: [f16; TILE_ROWS],
}

/// 16 rows of 256 columns, with 6.6 bits each. `w = d * scale * (q - 32)`, with a scale (signed) for every 16 columns.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct TileQ6K {
    /// Of 16 columns: the low four bits of the first eight and of the others, as in `TileQ4K`, and the high two bits of all: those of
    /// the first four columns lowest.
    pub(super) values: [[Words; 3]; 16],
    /// Of 32 columns: those of the first half and of the second.
    pub(super) scales: [Pairs; 8],
    pub(super) d: [f16; TILE_ROWS],
}

/// Of both kinds.
pub(super) trait Tile {
    /// The sum and one row's product with a block: what the others have to come to, to the bit.
    fn add_row(&self, row: usize, block: &Block, sum: f32) -> f32;

    /// # Safety
    /// [`x86::is_here`].
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "a method for processors that have a feature")]
    unsafe fn add_rows<const N: usize>(&self, blocks: &[Block; N], sums: &mut [Sums; N]);
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
    pub(super) const EMPTY: Self = Self {
        values: [[0; TILE_ROWS]; 32],
        scales: [[[0; 2]; TILE_ROWS]; 4],
        mins: [[[0; 2]; TILE_ROWS]; 4],
        d: [f16::ZERO; TILE_ROWS],
        d_min: [f16::ZERO; TILE_ROWS],
    };

    /// Two numbers of 16 bits, twelve bytes of eight scales and mins of six bits each, and 128 bytes of values: in the low halves of
    /// each 32 the first 32 columns of 64, in the high halves the others.
    pub(super) fn take(&mut self, row: usize, block: &[u8; Q4K_BYTES]) {
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
    pub(super) const EMPTY: Self =
        Self { values: [[[0; TILE_ROWS]; 3]; 16], scales: [[[0; 2]; TILE_ROWS]; 8], d: [f16::ZERO; TILE_ROWS] };

    /// 128 bytes of low halves, 64 of high bits, 16 scales and a number of 16 bits. Of 128 columns, 64 bytes hold the low halves: those
    /// of the first and second 32 in the low bits, of the third and fourth in the high bits; and 32 bytes the high bits of all, those
    /// of the first 32 lowest.
    pub(super) fn take(&mut self, row: usize, block: &[u8; Q6K_BYTES]) {
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

fn dot(weights: u32, activations: [i32; 4]) -> i32 {
    weights.to_le_bytes().iter().zip(activations).map(|(weight, activation)| i32::from(*weight) * activation).sum()
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
