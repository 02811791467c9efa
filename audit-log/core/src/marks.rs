//! Where texts may end in a record: every quote, backslash and control character, one bit a byte.
//!
//! Found for the whole record in one go, because texts are short: to search each for its end costs
//! more than the search. With AVX-512 64 bytes at a time, otherwise eight; the tests compare both
//! with the definition.

const WORD: usize = 64;

/// Sets `marks` for `bytes`: bit `n % 64` of word `n / 64` for byte `n`. Every bit behind the last
/// byte is set, and there are more than 64. Returns whether all bytes are ASCII.
pub(crate) fn find(bytes: &[u8], marks: &mut Vec<u64>) -> bool {
    let (words, rest) = bytes.as_chunks::<WORD>();
    marks.resize(words.len() + 2, 0);
    let mut last = [0; WORD];
    last[..rest.len()].copy_from_slice(rest);
    let ascii = words_of(words, &last, marks);
    if let [.., end, beyond] = marks.as_mut_slice() {
        *end |= u64::MAX << rest.len();
        *beyond = u64::MAX;
    }
    ascii
}

/// Where the next mark at or behind byte `at` is; `len` when there is none before it.
#[inline]
pub(crate) fn next(marks: &[u64], at: usize, len: usize) -> usize {
    let mut number = at / WORD;
    // At least 65 bytes from here on, in which nearly every text ends: no branch to be guessed.
    let Some([low, high]) = marks.get(number..).and_then(|rest| rest.first_chunk()) else { return len };
    let near = (u128::from(*high) << WORD | u128::from(*low)) >> (at % WORD);
    if near != 0 {
        return at + near.trailing_zeros() as usize;
    }
    number += 2;
    loop {
        let Some(word) = marks.get(number) else { return len };
        if *word != 0 {
            return number * WORD + word.trailing_zeros() as usize;
        }
        number += 1;
    }
}

fn words_of(words: &[[u8; WORD]], last: &[u8; WORD], marks: &mut [u64]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if crate::lanes::wide() {
        return avx512::words_of(words, last, marks);
    }
    let mut all = true;
    for (word, mark) in words.iter().chain([last]).zip(marks) {
        let ascii;
        (*mark, ascii) = plain(word);
        all &= ascii;
    }
    all
}

/// Eight bytes at a time.
fn plain(word: &[u8; WORD]) -> (u64, bool) {
    const ONES: u64 = u64::MAX / 255;
    const LOWS: u64 = ONES * 0x7f;
    let (mut marks, mut high) = (0, 0);
    for (n, eight) in word.as_chunks::<8>().0.iter().enumerate() {
        let eight = u64::from_le_bytes(*eight);
        // The highest bit of a byte is set unless its lower seven are zero: no sum here carries.
        let some = |bits: u64| (bits & LOWS) + LOWS;
        let (quote, backslash) = (some(eight ^ (ONES * b'"' as u64)), some(eight ^ (ONES * b'\\' as u64)));
        let control = some(eight & (ONES * 0x60));
        let none = !(quote & backslash & control) & !eight & !LOWS;
        high |= eight;
        // Bit 7 of byte `n` to bit `n`.
        marks |= ((none >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * n);
    }
    (marks, high & !LOWS == 0)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _mm512_cmpeq_epi8_mask, _mm512_cmplt_epu8_mask, _mm512_movepi8_mask, _mm512_or_si512, _mm512_set1_epi8,
        _mm512_setzero_si512,
    };

    use super::WORD;
    use crate::lanes::{load, wide};

    #[allow(unsafe_code, reason = "see lanes.rs")]
    pub(super) fn words_of(words: &[[u8; WORD]], last: &[u8; WORD], marks: &mut [u64]) -> bool {
        assert!(wide(), "asked for without the instructions");
        // SAFETY: the function is safe but for its instructions, and the processor has them.
        unsafe { run(words, last, marks) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn run(words: &[[u8; WORD]], last: &[u8; WORD], marks: &mut [u64]) -> bool {
        let quote = _mm512_set1_epi8(b'"' as i8);
        let backslash = _mm512_set1_epi8(b'\\' as i8);
        let space = _mm512_set1_epi8(b' ' as i8);
        let mut all = _mm512_setzero_si512();
        for (word, mark) in words.iter().chain([last]).zip(marks) {
            let word = load(word);
            all = _mm512_or_si512(all, word);
            *mark = _mm512_cmpeq_epi8_mask(word, quote)
                | _mm512_cmpeq_epi8_mask(word, backslash)
                | _mm512_cmplt_epu8_mask(word, space);
        }
        _mm512_movepi8_mask(all) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_are_where_they_should_be(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut marks = Vec::new();
            prop_assert_eq!(find(&bytes, &mut marks), bytes.is_ascii());
            let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
            for at in 0..=bytes.len() {
                let expect = bytes[at..].iter().position(special).map_or(bytes.len(), |n| at + n);
                prop_assert_eq!(next(&marks, at, bytes.len()), expect, "from {}", at);
            }
            prop_assert_eq!(next(&marks, bytes.len() + 64, bytes.len()), bytes.len());
            for word in bytes.as_chunks::<WORD>().0 {
                let expect = word.iter().rev().fold(0u64, |bits, b| bits << 1 | u64::from(special(b)));
                prop_assert_eq!(plain(word), (expect, word.is_ascii()));
            }
        }
    }
}
