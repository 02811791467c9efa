//! Both on processors with AVX-512 and VNNI.
#![allow(unsafe_code, reason = "the compiler writes no dot products of bytes by itself")]

use std::arch::x86_64::*;

use half::f16;

use super::kinds::{Pairs, Sums, Tile, TileQ4K, TileQ6K, Words};
use super::rounded::{self, Block};
use super::{TILE_COLUMNS, TILE_ROWS};

/// Rows of activations that share the registers.
const ROWS_AT_ONCE: usize = 4;

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
    let (d, times) = rounded::scale(if is_none == 0 { _mm512_reduce_max_ps(largest) } else { f32::NAN });
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
    rounded::keep_sums(&sums, block);
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
