//! Names of beginnings: a hash over all tokens up to the end of a block.

use super::BLOCK_POSITIONS;

/// The hash of a scope and of every token up to the end of a block; equal hashes mean equal
/// keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PrefixHash([u8; 32]);

impl PrefixHash {
    /// The hash before the first block. Sequences of different scopes never share blocks, so that
    /// nobody can learn from the speed of an answer what others have asked.
    pub(super) fn root(scope: &[u8]) -> Self {
        Self(*blake3::hash(scope).as_bytes())
    }

    /// The hash one block further.
    pub(super) fn then(self, tokens: &[u32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The hashes of all full blocks of `tokens`.
    pub(super) fn of_blocks(root: Self, tokens: &[u32]) -> Vec<Self> {
        let mut hash = root;
        let (blocks, _) = tokens.as_chunks::<BLOCK_POSITIONS>();
        let mut hashes = Vec::with_capacity(blocks.len());
        for block in blocks {
            hash = hash.then(block);
            hashes.push(hash);
        }
        hashes
    }
}
