//! The hashes of the log: RFC 6962 leaves and nodes, and the running chain.
//!
//! Each use has its own first byte (0 leaf, 1 node, 2 chain), so that no value of one kind can
//! be passed off as another.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    lanes::{self, LANES, hash_many},
    proof::root_of,
};

pub(crate) const LEAF: u8 = 0;
pub(crate) const NODE: u8 = 1;
pub(crate) const CHAIN: u8 = 2;

/// A SHA-256 value, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Hash(pub [u8; 32]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 value: 64 lower-case hexadecimal digits are needed")]
pub struct HashParseError;

impl Hash {
    /// Thirty-two zero bytes: the `writer_prev` of a writer's first record in a log.
    pub const ZERO: Hash = Hash([0; 32]);

    /// SHA-256 of `bytes`, without a domain byte.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// SHA-256 of the parts, one behind the other.
    pub(crate) fn of_parts(parts: &[&[u8]]) -> Self {
        let mut sha = Sha256::new();
        parts.iter().for_each(|part| sha.update(part));
        Self(sha.finalize().into())
    }

    /// What `then` makes of the 64 lower-case hexadecimal digits.
    fn with_hex<T>(&self, then: impl FnOnce(&str) -> T) -> T {
        let mut text = [0; 64];
        // The buffer is exactly twice the input, so encoding cannot fail.
        let _ = hex::encode_to_slice(self.0, &mut text);
        then(std::str::from_utf8(&text).unwrap_or_default())
    }

    /// Parses 64 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Result<Self, HashParseError> {
        let mut out = [0; 32];
        decode_hex(text, &mut out).ok_or(HashParseError)?;
        Ok(Self(out))
    }
}

/// Lower-case hexadecimal digits, eight at a time; `None` for anything else. `out` holds half as
/// many bytes, a multiple of four.
///
/// A verifier reads two of these in each record: this is why it is not left to a general decoder.
pub(crate) fn decode_hex(text: &[u8], out: &mut [u8]) -> Option<()> {
    const ONES: u64 = u64::MAX / 255;
    let (words, rest) = text.as_chunks::<8>();
    let (groups, rest_out) = out.as_chunks_mut::<4>();
    if words.len() != groups.len() || !rest.is_empty() || !rest_out.is_empty() {
        return None;
    }
    // Asked for at the end only, so that no word waits for the one before it.
    let mut wrong = 0;
    for (word, group) in words.iter().zip(groups) {
        let word = u64::from_le_bytes(*word);
        let low = word & (ONES * 0x0f);
        let letter = word >> 6 & ONES;
        // A digit is 0x30 + 0..=9, a letter 0x60 + 1..=6. No sum here carries into the next byte.
        let exact = word == ONES * 0x30 + low + letter * 0x30;
        let too_large = (low + ONES * 6 + letter * 3) & (ONES * 0x10);
        let not_zero = (low + ONES * 0x0f) >> 4 & ONES;
        wrong |= too_large | (letter & !not_zero) | u64::from(!exact);
        let nibbles = low + letter * 9;
        let pairs = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
        let pairs = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
        *group = ((pairs | pairs >> 16) as u32).to_le_bytes();
    }
    (wrong == 0).then_some(())
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_hex(|text| f.write_str(text))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { self.with_hex(|text| s.serialize_str(text)) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = String::deserialize(d)?;
            Self::parse(text.as_bytes()).map_err(serde::de::Error::custom)
        } else {
            Ok(Self(<[u8; 32]>::deserialize(d)?))
        }
    }
}

/// RFC 6962 leaf hash: `SHA-256(0x00 || leaf)`.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash::of_parts(&[&[LEAF], leaf])
}

/// The [`leaf_hash`] of each of `leaves`, which are ranges of `bytes`; `out`'s contents are replaced.
///
/// Much quicker than one by one. A range that is not within `bytes` counts as an empty leaf.
pub fn leaf_hashes(bytes: &[u8], leaves: &[Range<usize>], out: &mut Vec<Hash>) {
    out.clear();
    out.resize(leaves.len(), Hash::ZERO);
    let leaf = |n: usize| leaves.get(n).and_then(|range| bytes.get(range.clone())).unwrap_or_default();
    hash_each(leaf, out);
}

/// The [`leaf_hash`] of `count` leaves, wherever they stand; as quick as [`leaf_hashes`].
pub fn leaf_hashes_of<'a>(count: usize, leaf: impl Fn(usize) -> &'a [u8]) -> Vec<Hash> {
    let mut out = vec![Hash::ZERO; count];
    hash_each(leaf, &mut out);
    out
}

fn hash_each<'a>(leaf: impl Fn(usize) -> &'a [u8], out: &mut [Hash]) {
    hash_many(LEAF, out.len(), leaf, |n, hash| {
        if let Some(out) = out.get_mut(n) {
            *out = hash;
        }
    });
}

/// RFC 6962 interior node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    pair(NODE, left, right)
}

/// For each run of leaf hashes with the chain before it: the chain behind it ([`chain_next`]), and the
/// RFC 6962 root over it alone. Quickest for sixteen runs of one length that is a power of two.
pub fn hash_runs(runs: &[(Hash, &[Hash])]) -> Vec<(Hash, Hash)> {
    let mut out = Vec::with_capacity(runs.len());
    for runs in runs.chunks(LANES) {
        #[cfg(target_arch = "x86_64")]
        if let [(_, first), .., (_, last)] = runs
            && runs.len() >= lanes::MIN_MESSAGES
            && first.len() > 1
            && first.len().is_power_of_two()
            && runs.iter().all(|run| run.1.len() == first.len())
            && lanes::wide()
        {
            // Lanes that are left over do the last one's work again.
            let starts = std::array::from_fn(|n| runs.get(n).map_or(&Hash::ZERO, |run| &run.0));
            let leaves = std::array::from_fn(|n| runs.get(n).map_or(*last, |run| run.1));
            out.extend(lanes::hash_runs(starts, leaves).iter().take(runs.len()));
            continue;
        }
        out.extend(runs.iter().map(|(start, leaves)| {
            let chain = leaves.iter().fold(*start, |chain, leaf| chain_next(&chain, leaf));
            (chain, root_of(leaves))
        }));
    }
    out
}

pub(crate) fn joined(left: &Hash, right: &Hash) -> [u8; 64] {
    let mut out = [0; 64];
    out[..32].copy_from_slice(&left.0);
    out[32..].copy_from_slice(&right.0);
    out
}

/// The running chain before the first record of a log, bound to the log's origin so that no
/// other log's records can be spliced in.
pub fn chain_start(origin: &str) -> Hash {
    let mut sha = Sha256::new();
    sha.update(b"provost audit chain 1\n");
    sha.update(origin.as_bytes());
    Hash(sha.finalize().into())
}

/// The running chain after one more leaf: `SHA-256(0x02 || chain || leaf_hash)`.
pub fn chain_next(chain: &Hash, leaf: &Hash) -> Hash {
    pair(CHAIN, chain, leaf)
}

fn pair(domain: u8, a: &Hash, b: &Hash) -> Hash {
    let mut input = [0; 65];
    input[0] = domain;
    input[1..33].copy_from_slice(&a.0);
    input[33..].copy_from_slice(&b.0);
    Hash::of(&input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_never_meet() {
        let (a, b) = (Hash([1; 32]), Hash([2; 32]));
        let mut joined = a.0.to_vec();
        joined.extend_from_slice(&b.0);
        assert_ne!(node_hash(&a, &b), chain_next(&a, &b));
        assert_ne!(node_hash(&a, &b), leaf_hash(&joined));
        assert_ne!(chain_start("provost/a"), chain_start("provost/b"));
    }

    #[test]
    fn runs_are_hashed_as_one_by_one() {
        let leaves: Vec<Hash> = (0u32..600).map(|n| leaf_hash(&n.to_le_bytes())).collect();
        for len in [0, 1, 2, 3, 4, 32, 256] {
            for count in [0, 1, 6, 7, 15, 16, 17, 40] {
                let runs: Vec<_> = (0..count).map(|n| (leaves[599 - n], &leaves[n * 3..n * 3 + len])).collect();
                let hashed = hash_runs(&runs);
                assert_eq!(hashed.len(), count);
                for ((start, leaves), (chain, root)) in runs.into_iter().zip(hashed) {
                    let mut tree = crate::Frontier::default();
                    let expect = leaves.iter().fold(start, |chain, leaf| chain_next(&chain, leaf));
                    leaves.iter().for_each(|leaf| tree.append(*leaf));
                    assert_eq!((chain, root), (expect, tree.root()), "{count} runs of {len}");
                }
            }
        }
    }

    #[test]
    fn text_form_is_exact() {
        let hash = leaf_hash(b"");
        // RFC 6962 section 2.1.3: the hash of an empty leaf.
        assert_eq!(hash.to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(Hash::parse(hash.to_string().as_bytes()), Ok(hash));
        assert_eq!(Hash::parse(b"00"), Err(HashParseError));
        assert_eq!(Hash::parse("AB".repeat(32).as_bytes()), Err(HashParseError));
        for byte in 0..=u8::MAX {
            for at in [0, 7, 8, 63] {
                let mut text = hash.to_string().into_bytes();
                text[at] = byte;
                let plain = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let read = Hash::parse(&text);
                assert_eq!(read.is_ok(), plain, "byte {byte} at {at}");
                if let Ok(read) = read {
                    assert_eq!(read.to_string().into_bytes(), text);
                }
            }
        }
    }
}
