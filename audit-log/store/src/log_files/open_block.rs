//! The records after the last full block.

use provost_audit_core::{BLOCK_RECORDS, Hash};

/// The levels of a tree over one block.
pub(super) const BLOCK_LEVEL: u32 = BLOCK_RECORDS.trailing_zeros();

/// Room of a block that is kept for the next one: bytes.
const MAX_KEPT_ROOM: usize = 512 << 10;

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

    /// The next one, in the room of this one, which is written: a log's records are about as long as those before.
    pub(super) fn following(self, first: u64, chain_in: Hash) -> Self {
        let Self { mut raw, mut hashes, .. } = self;
        raw.clear();
        raw.shrink_to(MAX_KEPT_ROOM);
        hashes.clear();
        Self { first, raw, hashes, chain_in, times: (u64::MAX, 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_block_is_empty_and_has_the_room_of_the_last() {
        let chain = Hash::of(b"chain");
        let mut block = OpenBlock::new(0, Hash::ZERO);
        (0..100).for_each(|n| block.push(&[7; 1_000], Hash::of(&[n]), 5));
        let room = block.raw.capacity();
        let next = block.following(256, chain);
        assert_eq!((next.first, next.chain_in, next.times), (256, chain, (u64::MAX, 0)));
        assert_eq!((next.raw.len(), next.hashes.len(), next.raw.capacity()), (0, 0, room));
    }

    #[test]
    fn a_block_of_long_records_does_not_stay_in_memory() {
        let mut block = OpenBlock::new(0, Hash::ZERO);
        (0..100).for_each(|n| block.push(&[7; 60_000], Hash::of(&[n]), 5));
        assert!(block.raw.capacity() > MAX_KEPT_ROOM);
        assert!(block.following(256, Hash::ZERO).raw.capacity() <= MAX_KEPT_ROOM);
    }
}
