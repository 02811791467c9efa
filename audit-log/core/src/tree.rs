//! The right edge of an RFC 6962 tree: enough to append and to give the root, in O(log n) space.

use serde::{Deserialize, Serialize};

use crate::hash::{Hash, node_hash};

/// A compact range from leaf 0: one root for each set bit of `size`, largest subtree first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// Rebuilds a frontier; `None` when the number of roots does not fit the size.
    pub fn from_parts(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, largest first: one for each set bit of the size.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// The root of the tree in which `part` follows this one's leaves.
    ///
    /// `None` when `part` does not fit there: its largest subtree is wider than this tree's
    /// size allows, or the sizes overflow.
    pub fn root_with(&self, part: &Frontier) -> Option<Hash> {
        let mut whole = self.clone();
        let levels = (0..u64::BITS).rev().filter(|level| part.size >> level & 1 == 1);
        for (level, root) in levels.zip(&part.roots) {
            if !whole.append_subtree(*root, level) {
                return None;
            }
        }
        Some(whole.root())
    }

    /// Appends one leaf hash.
    pub fn append(&mut self, leaf: Hash) {
        self.append_subtree(leaf, 0);
    }

    /// Appends the root of a complete subtree of `2^level` leaves.
    ///
    /// Returns false, and changes nothing, when the size is not a multiple of `2^level` or would
    /// overflow.
    pub fn append_subtree(&mut self, root: Hash, level: u32) -> bool {
        let Some(step) = 1u64.checked_shl(level) else { return false };
        let Some(size) = self.size.checked_add(step) else { return false };
        if !self.size.is_multiple_of(step) {
            return false;
        }
        let mut merged = root;
        let mut carry = self.size >> level;
        while carry & 1 == 1 {
            let Some(left) = self.roots.pop() else { return false };
            merged = node_hash(&left, &merged);
            carry >>= 1;
        }
        self.roots.push(merged);
        self.size = size;
        true
    }

    /// The RFC 6962 tree head: `SHA-256("")` for the empty tree.
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return Hash::of(b"") };
        roots.fold(*last, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;

    /// The eight leaves and roots of the reference tests of Certificate Transparency
    /// (`merkletree` test vectors used by RFC 6962 implementations).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn known_roots() {
        let mut tree = Frontier::default();
        assert_eq!(tree.root().to_string(), ROOTS[0]);
        for (leaf, root) in LEAVES.iter().zip(&ROOTS[1..]) {
            tree.append(leaf_hash(&hex::decode(leaf).unwrap()));
            assert_eq!(&tree.root().to_string(), root);
        }
    }

    #[test]
    fn subtrees_equal_leaves() {
        let leaves: Vec<Hash> = (0u32..21).map(|i| leaf_hash(&i.to_le_bytes())).collect();
        let mut plain = Frontier::default();
        leaves.iter().for_each(|l| plain.append(*l));
        let mut mixed = Frontier::default();
        for chunk in leaves.chunks(4) {
            let mut part = Frontier::default();
            chunk.iter().for_each(|l| part.append(*l));
            if chunk.len() == 4 {
                assert!(mixed.append_subtree(part.root(), 2));
            } else {
                chunk.iter().for_each(|l| mixed.append(*l));
            }
        }
        assert_eq!(plain, mixed);
        let mut front = Frontier::default();
        leaves[..16].iter().for_each(|l| front.append(*l));
        let mut rest = Frontier::default();
        leaves[16..].iter().for_each(|l| rest.append(*l));
        assert_eq!(front.root_with(&rest), Some(plain.root()));
        assert_eq!(rest.root_with(&front), None, "16 leaves do not follow 5 as one subtree");
        assert!(!mixed.append_subtree(Hash::ZERO, 3), "21 is not a multiple of 8");
        assert!(!mixed.append_subtree(Hash::ZERO, 64), "no such level");
    }
}
