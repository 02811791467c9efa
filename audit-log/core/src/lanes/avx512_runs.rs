//! Running chains and trees over sixteen runs of leaves at once, a run in each lane.

use std::arch::x86_64::{
    __m512i, _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi32,
};

use super::{
    LANES,
    avx512::{BLOCK, State, compress, digest, initial, words},
    wide,
};
use crate::hash::{CHAIN, Hash, NODE, joined};

/// For each run: the chain from `starts` through it, and the root over it. The runs are equally long,
/// by a power of two that is not one.
#[allow(unsafe_code, reason = "see avx512.rs")]
pub(crate) fn hash_runs(starts: [&Hash; LANES], runs: [&[Hash]; LANES]) -> [(Hash, Hash); LANES] {
    assert!(wide(), "asked for without the instructions");
    // SAFETY: the function is safe but for its instructions, and the processor has them.
    unsafe { run(starts, runs) }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn run(starts: [&Hash; LANES], runs: [&[Hash]; LANES]) -> [(Hash, Hash); LANES] {
    let mut two = [[0; BLOCK]; LANES];
    let mut halves = |left: [&Hash; LANES], right: [&Hash; LANES]| -> (State, State) {
        for ((two, left), right) in two.iter_mut().zip(left).zip(right) {
            *two = joined(left, right);
        }
        let words = words(two.each_ref());
        (std::array::from_fn(|n| words[n]), std::array::from_fn(|n| words[n + 8]))
    };
    let (mut chain, _) = halves(starts, starts);
    let mut tree: Vec<State> = Vec::new();
    for n in 0..runs[0].len() / 2 {
        let (left, right) = halves(runs.map(|run| &run[2 * n]), runs.map(|run| &run[2 * n + 1]));
        chain = pair(CHAIN, &chain, &left);
        chain = pair(CHAIN, &chain, &right);
        let mut node = pair(NODE, &left, &right);
        for _ in 0..n.trailing_ones() {
            let Some(before) = tree.pop() else { break };
            node = pair(NODE, &before, &node);
        }
        tree.push(node);
    }
    let root = tree.pop().unwrap_or(chain);
    std::array::from_fn(|lane| (digest(&chain, lane), digest(&root, lane)))
}

/// The hash of a byte and two values in each lane: 65 bytes, so that every word is shifted by one.
#[target_feature(enable = "avx512f,avx512bw")]
fn pair(domain: u8, a: &State, b: &State) -> State {
    let word = |value: u32| _mm512_set1_epi32(value as i32);
    let joint =
        |high: __m512i, low: __m512i| _mm512_or_si512(_mm512_slli_epi32::<24>(high), _mm512_srli_epi32::<8>(low));
    let first = std::array::from_fn(|n| match n {
        0 => joint(word(u32::from(domain)), a[0]),
        1..8 => joint(a[n - 1], a[n]),
        8 => joint(a[7], b[0]),
        _ => joint(b[n - 9], b[n - 8]),
    });
    let mut second = [_mm512_setzero_si512(); 16];
    second[0] = joint(b[7], word(0x8000_0000));
    second[15] = word(65 * 8);
    compress(compress(initial(), first), second)
}
