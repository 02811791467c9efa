//! Inclusion and consistency proofs (RFC 6962 section 2.1) and their verification
//! (RFC 9162 sections 2.1.3.2 and 2.1.4.2).

use std::ops::Range;

use crate::hash::{Hash, node_hash};

/// Why a proof does not hold, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index or the sizes are outside the tree.
    #[error("index or size lies outside the tree")]
    OutOfRange,
    /// The proof has too few or too many hashes for these sizes.
    #[error("the proof has the wrong number of hashes")]
    WrongLength,
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    WrongRoot,
}

/// The root of leaves `range` from their hashes; `SHA-256("")` when empty.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut tree = crate::tree::Frontier::default();
    leaves.iter().for_each(|leaf| tree.append(*leaf));
    tree.root()
}

/// The audit path of leaf `index` in the tree of the first `size` leaves.
///
/// `subtree` gives the root of a range of leaves; it is asked about O(log n) ranges.
pub fn inclusion_proof<E: From<ProofError>>(
    index: u64,
    size: u64,
    subtree: &mut dyn FnMut(Range<u64>) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    if index >= size {
        return Err(ProofError::OutOfRange.into());
    }
    let mut siblings = Vec::new();
    let (mut low, mut high) = (0, size);
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            siblings.push(middle..high);
            high = middle;
        } else {
            siblings.push(low..middle);
            low = middle;
        }
    }
    siblings.into_iter().rev().map(subtree).collect()
}

/// The proof that the tree of `new` leaves extends the tree of `old` leaves.
pub fn consistency_proof<E: From<ProofError>>(
    old: u64,
    new: u64,
    subtree: &mut dyn FnMut(Range<u64>) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    if old > new {
        return Err(ProofError::OutOfRange.into());
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let mut ranges = Vec::new();
    let (mut low, mut high) = (0, new);
    // `whole` stays true while the old tree's root is itself one node on the way down.
    let mut whole = true;
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            ranges.push(middle..high);
            high = middle;
        } else {
            ranges.push(low..middle);
            low = middle;
            whole = false;
        }
    }
    if !whole {
        ranges.push(low..high);
    }
    ranges.into_iter().rev().map(subtree).collect()
}

/// Checks that `leaf` is at `index` in the tree of `size` leaves with this `root`.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last == 0, hash == *root) {
        (false, _) => Err(ProofError::WrongLength),
        (true, false) => Err(ProofError::WrongRoot),
        (true, true) => Ok(()),
    }
}

/// Checks that the tree (`new`, `new_root`) extends the tree (`old`, `old_root`).
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::OutOfRange);
    }
    if old == 0 || old == new {
        let same = old != new || old_root == new_root;
        let empty = old != 0 || *old_root == Hash::of(b"");
        return match (proof.is_empty(), same && empty) {
            (false, _) => Err(ProofError::WrongLength),
            (true, false) => Err(ProofError::WrongRoot),
            (true, true) => Ok(()),
        };
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut rest = proof.iter();
    // A complete old tree is its own first node and is not repeated in the proof.
    let first = if old.is_power_of_two() { *old_root } else { *rest.next().ok_or(ProofError::WrongLength)? };
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last == 0, old_hash == *old_root && new_hash == *new_root) {
        (false, _) => Err(ProofError::WrongLength),
        (true, false) => Err(ProofError::WrongRoot),
        (true, true) => Ok(()),
    }
}

/// The largest power of two below `n` (`n` > 1).
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash::leaf_hash;

    fn leaves(n: u64) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn source(all: &[Hash]) -> impl FnMut(Range<u64>) -> Result<Hash, ProofError> {
        |range| Ok(root_of(&all[range.start as usize..range.end as usize]))
    }

    #[test]
    fn every_small_tree() {
        let all = leaves(20);
        for size in 1..=20u64 {
            let root = root_of(&all[..size as usize]);
            for index in 0..size {
                let proof = inclusion_proof(index, size, &mut source(&all)).unwrap();
                let leaf = &all[index as usize];
                assert_eq!(verify_inclusion(leaf, index, size, &proof, &root), Ok(()));
                let other = (index + 1) % size;
                if size > 1 {
                    assert!(verify_inclusion(leaf, other, size, &proof, &root).is_err());
                }
                let mut long = proof.clone();
                long.push(Hash::ZERO);
                assert!(verify_inclusion(leaf, index, size, &long, &root).is_err());
            }
            for old in 0..=size {
                let old_root = root_of(&all[..old as usize]);
                let proof = consistency_proof(old, size, &mut source(&all)).unwrap();
                assert_eq!(verify_consistency(old, size, &proof, &old_root, &root), Ok(()));
                if old > 0 {
                    assert!(verify_consistency(old, size, &proof, &Hash::ZERO, &root).is_err(), "{old} of {size}");
                }
                let mut long = proof.clone();
                long.push(Hash::ZERO);
                assert!(verify_consistency(old, size, &long, &old_root, &root).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_proof_never_holds(size in 2u64..300, seed in any::<u64>(), bit in 0usize..256) {
            let all = leaves(size);
            let root = root_of(&all);
            let index = seed % size;
            let mut proof = inclusion_proof(index, size, &mut source(&all)).unwrap();
            let at = (seed as usize / 7) % proof.len();
            proof[at].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(&all[index as usize], index, size, &proof, &root).is_err());

            let old = 1 + seed % (size - 1);
            let old_root = root_of(&all[..old as usize]);
            let mut proof = consistency_proof(old, size, &mut source(&all)).unwrap();
            prop_assert_eq!(verify_consistency(old, size, &proof, &old_root, &root), Ok(()));
            let at = (seed as usize / 7) % proof.len();
            proof[at].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_consistency(old, size, &proof, &old_root, &root).is_err());
        }

        #[test]
        fn a_rewritten_history_is_inconsistent(size in 2u64..200, seed in any::<u64>()) {
            let old = 1 + seed % (size - 1);
            let honest = leaves(size);
            let mut forged = honest.clone();
            forged[(seed % old) as usize] = leaf_hash(b"forged");
            let proof = consistency_proof(old, size, &mut source(&forged)).unwrap();
            let (old_root, new_root) = (root_of(&honest[..old as usize]), root_of(&forged));
            prop_assert!(verify_consistency(old, size, &proof, &old_root, &new_root).is_err());
        }
    }
}
