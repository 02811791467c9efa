//! The same sixteen rounds at a time for sixteen lanes.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi128_si32, _mm_set_epi64x, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_castsi512_si128,
    _mm512_mask_mov_epi32, _mm512_permutexvar_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_shuffle_epi8,
    _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::{LANES, wide};
use crate::hash::Hash;

pub(crate) const BLOCK: usize = 64;

/// A SHA-256 value, or the state before it, of each lane: eight words.
pub(crate) type State = [__m512i; 8];

/// FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// FIPS 180-4, 4.2.2, sixteen rounds a row.
#[rustfmt::skip]
const ROUNDS: [[u32; 16]; 4] = [
    [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
     0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174],
    [0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
     0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967],
    [0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
     0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070],
    [0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
     0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2],
];

#[allow(
    unsafe_code,
    reason = "only by this call does the compiler let a function use instructions beyond the baseline"
)]
pub(crate) fn hash_many<'a>(
    domain: u8,
    count: usize,
    message: impl Fn(usize) -> &'a [u8],
    done: impl FnMut(usize, Hash),
) {
    assert!(wide(), "asked for without the instructions");
    // SAFETY: the function is safe but for its instructions, and the processor has them.
    unsafe { run(domain, count, message, done) }
}

/// A message on its way through a lane.
#[derive(Clone, Copy)]
struct Lane<'a> {
    /// Its number; `None` for a lane that has nothing to do.
    number: Option<usize>,
    message: &'a [u8],
    /// Blocks that went before, and all of them.
    block: usize,
    blocks: usize,
}

impl<'a> Lane<'a> {
    fn new(number: Option<usize>, message: &'a [u8]) -> Self {
        // The domain's byte before it, a one-bit and its length behind it.
        Self { number, message, block: 0, blocks: (1 + message.len() + 1 + 8).div_ceil(BLOCK) }
    }

    /// The next block, where it stands in the message as it is.
    #[inline]
    fn direct(&self) -> Option<&'a [u8; BLOCK]> {
        let at = (self.block * BLOCK).checked_sub(1)?;
        self.message.get(at..)?.first_chunk()
    }

    /// The next block, where the domain's byte or the padding is part of it.
    fn stage(&self, domain: u8, into: &mut [u8; BLOCK]) {
        let (to, from) = match self.block {
            0 => (1, 0),
            n => (0, n * BLOCK - 1),
        };
        if self.block == 0 {
            into[0] = domain;
            if let Some(first) = self.message.first_chunk::<{ BLOCK - 1 }>() {
                into[1..].copy_from_slice(first);
                return;
            }
        }
        into[to..].fill(0);
        let rest = self.message.get(from..).unwrap_or_default();
        let len = rest.len().min(BLOCK - to);
        into[to..to + len].copy_from_slice(&rest[..len]);
        // The one-bit follows the last byte: not where the message ended in an earlier block.
        if from <= self.message.len() && to + len < BLOCK {
            into[to + len] = 0x80;
        }
        if self.block + 1 == self.blocks {
            let bits = 8 * (1 + self.message.len() as u64);
            into[BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn run<'a>(domain: u8, count: usize, message: impl Fn(usize) -> &'a [u8], mut done: impl FnMut(usize, Hash)) {
    let initial = initial();
    let mut state = initial;
    let mut waiting = 0..count;
    let mut next = || waiting.next().map_or(Lane::new(None, &[]), |n| Lane::new(Some(n), message(n)));
    let mut lanes: [Lane<'a>; LANES] = std::array::from_fn(|_| next());
    let mut staged = [[0; BLOCK]; LANES];
    let mut left = count;
    while left > 0 {
        let mut direct = [None; LANES];
        for ((lane, staged), direct) in lanes.iter().zip(&mut staged).zip(&mut direct) {
            *direct = lane.direct();
            if direct.is_none() {
                lane.stage(domain, staged);
            }
        }
        state = compress(state, words(std::array::from_fn(|n| direct[n].unwrap_or(&staged[n]))));
        let mut renewed = 0u16;
        for (n, lane) in lanes.iter_mut().enumerate() {
            lane.block += 1;
            if lane.block < lane.blocks {
                continue;
            }
            if let Some(number) = lane.number {
                done(number, digest(&state, n));
                left -= 1;
            }
            *lane = next();
            renewed |= 1 << n;
        }
        if renewed != 0 {
            for (word, initial) in state.iter_mut().zip(initial) {
                *word = _mm512_mask_mov_epi32(*word, renewed, initial);
            }
        }
    }
}

/// The state before the first block.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn initial() -> State {
    INITIAL.map(|word| _mm512_set1_epi32(word as i32))
}

/// The value in one lane.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn digest(state: &State, lane: usize) -> Hash {
    let lane = _mm512_set1_epi32(lane as i32);
    let mut out = [0; 32];
    for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        let word = _mm_cvtsi128_si32(_mm512_castsi512_si128(_mm512_permutexvar_epi32(lane, *word)));
        *bytes = word.to_be_bytes();
    }
    Hash(out)
}

/// The bytes as they are, in one load: put together from words the compiler makes a dozen instructions of it.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
#[allow(unsafe_code, reason = "the safe ways cost a tenth of the hashing")]
pub(crate) fn load(bytes: &[u8; BLOCK]) -> __m512i {
    // SAFETY: both are 64 bytes, and any 64 bytes are a vector.
    unsafe { std::mem::transmute::<[u8; BLOCK], __m512i>(*bytes) }
}

/// Word `n` of every block in vector `n`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn words(blocks: [&[u8; BLOCK]; LANES]) -> [__m512i; 16] {
    let big_endian = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203));
    // A transposition of 16 x 16 words: of pairs, of pairs of pairs, of quarters, of halves.
    let rows: [__m512i; 16] = std::array::from_fn(|n| _mm512_shuffle_epi8(load(blocks[n]), big_endian));
    let pairs: [__m512i; 16] = std::array::from_fn(|n| {
        let (a, b) = (rows[n & !1], rows[n | 1]);
        if n & 1 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
    });
    let fours: [__m512i; 16] = std::array::from_fn(|n| {
        let from = (n & !3) + (n >> 1 & 1);
        let (a, b) = (pairs[from], pairs[from + 2]);
        if n & 1 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
    });
    let eights: [__m512i; 16] = std::array::from_fn(|n| {
        let (a, b) = (fours[(n & 8) + (n & 3)], fours[(n & 8) + (n & 3) + 4]);
        if n & 4 == 0 { _mm512_shuffle_i32x4::<0x88>(a, b) } else { _mm512_shuffle_i32x4::<0xdd>(a, b) }
    });
    std::array::from_fn(|n| {
        let (a, b) = (eights[n & 7], eights[(n & 7) + 8]);
        if n & 8 == 0 { _mm512_shuffle_i32x4::<0x88>(a, b) } else { _mm512_shuffle_i32x4::<0xdd>(a, b) }
    })
}

/// FIPS 180-4, 6.2.2, for one block of each lane, given as words.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn compress(state: State, mut w: [__m512i; 16]) -> State {
    const XOR: i32 = 0x96;
    const CHOOSE: i32 = 0xca;
    const MAJORITY: i32 = 0xe8;
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    for (row, constants) in ROUNDS.iter().enumerate() {
        // Written out, so that the words stay in registers.
        macro_rules! rounds {
            ($($n:literal)*) => {$({
                if row > 0 {
                    let (early, late) = (w[($n + 1) % 16], w[($n + 14) % 16]);
                    let early = _mm512_ternarylogic_epi32::<XOR>(
                        _mm512_ror_epi32::<7>(early), _mm512_ror_epi32::<18>(early), _mm512_srli_epi32::<3>(early));
                    let late = _mm512_ternarylogic_epi32::<XOR>(
                        _mm512_ror_epi32::<17>(late), _mm512_ror_epi32::<19>(late), _mm512_srli_epi32::<10>(late));
                    w[$n] = _mm512_add_epi32(
                        _mm512_add_epi32(w[$n], early), _mm512_add_epi32(w[($n + 9) % 16], late));
                }
                let sum = _mm512_ternarylogic_epi32::<XOR>(
                    _mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
                let word = _mm512_add_epi32(w[$n], _mm512_set1_epi32(constants[$n] as i32));
                let choice = _mm512_ternarylogic_epi32::<CHOOSE>(e, f, g);
                let first = _mm512_add_epi32(_mm512_add_epi32(_mm512_add_epi32(h, word), choice), sum);
                let sum = _mm512_ternarylogic_epi32::<XOR>(
                    _mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
                let majority = _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c);
                (h, g, f, e) = (g, f, e, _mm512_add_epi32(d, first));
                (d, c, b, a) = (c, b, a, _mm512_add_epi32(first, _mm512_add_epi32(sum, majority)));
            })*};
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }
    let end = [a, b, c, d, e, f, g, h];
    std::array::from_fn(|n| _mm512_add_epi32(state[n], end[n]))
}
