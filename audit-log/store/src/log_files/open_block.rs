//! The records after the last full block.

use provost_audit_core::{BLOCK_RECORDS, Hash};

/// The levels of a tree over one block.
pub(super) const BLOCK_LEVEL: u32 = BLOCK_RECORDS.trailing_zeros();

/// Records that do not fill a block yet.
pub(super) struct OpenBlock {
    pub(super) first: u64,
    pub(super) raw: Vec<u8>,
    pub(super) hashes: Vec<Hash>,
    pub(super) chain_in: Hash,
    pub(super) times: (u64, u64),
}

impl OpenBlock {
    pub(super) fn new(first: u64, chain_in: Hash) -> Self {
        let hashes = Vec::with_capacity(BLOCK_RECORDS as usize);
        Self { first, raw: Vec::new(), hashes, chain_in, times: (u64::MAX, 0) }
    }

    pub(super) fn push(&mut self, leaf: &[u8], hash: Hash, time_ns: u64) {
        self.raw.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(leaf);
        self.hashes.push(hash);
        self.times = (self.times.0.min(time_ns), self.times.1.max(time_ns));
    }
}
