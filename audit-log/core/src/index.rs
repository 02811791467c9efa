//! A segment's index: in which of its blocks a value occurs, and which times each block spans.
//!
//! Purpose: a query for one principal, tool, status, workflow, call or event reads the blocks that
//! can hold it, not all of them.
//! Invariants: a pure function of the segment, so that it can be made again and compared byte by
//! byte; bound to the segment by its first index and root; two values that share a key only make
//! a query read more. Nothing is proven from an index: one that does not fit is passed over.
//! Left out: where it lies and who reads it (`provost-audit-store`), the comparison with the
//! records (`provost-audit-verify`).

use std::collections::BTreeMap;

use provost_types::CallStatus;

use crate::{
    block::{BLOCK_HEADER_LEN, BLOCK_RECORDS, SEGMENT_BLOCKS, SEGMENT_HEADER_LEN, SEGMENT_LEAVES},
    block_set::BlockSet,
    hash::Hash,
    record::Record,
};

const MAGIC: [u8; 8] = *b"PVIDX\0\0\x01";
const HEADER_LEN: usize = 8 + 8 + 32 + 4 + 4;
const PLACE_LEN: usize = 8 + 8 + 8;
const PLACES_LEN: usize = SEGMENT_BLOCKS as usize * PLACE_LEN;
const ENTRY_LEN: usize = 8 + 4;
const SUM_LEN: usize = 32;
/// A longer list of blocks is written as 256 bits.
const MAX_LISTED: usize = 31;
const AS_BITS: u8 = 255;
/// The longest index: every value of every record differs.
pub const MAX_INDEX_BYTES: usize =
    HEADER_LEN + PLACES_LEN + SEGMENT_LEAVES as usize * FIELDS * (ENTRY_LEN + 2) + SUM_LEN;
const FIELDS: usize = 6;

/// What is indexed. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexField {
    /// `principal`.
    Principal = 1,
    /// Tool, prompt, resource, model or target: whichever the record has.
    Called = 2,
    /// `status`.
    Status = 3,
    /// `workflow`.
    Workflow = 4,
    /// `call_id`, 32 hexadecimal digits.
    Call = 5,
    /// `event`.
    Event = 6,
}

/// The key under which a value is found: 64-bit FNV-1a of the field's number and the value.
pub fn index_key(field: IndexField, value: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = std::iter::once(field as u8).chain(value.bytes());
    bytes.fold(OFFSET, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The keys of one record.
pub fn index_keys(record: &Record<'_>) -> impl Iterator<Item = u64> {
    let call = record.call_id.to_string();
    let status = record.status.map(status_word);
    let values = [
        (IndexField::Principal, record.principal.as_deref()),
        (IndexField::Called, record.called()),
        (IndexField::Status, status),
        (IndexField::Workflow, record.workflow.as_deref()),
        (IndexField::Call, Some(call.as_str())),
        (IndexField::Event, record.event.as_deref()),
    ];
    let keys = values.map(|(field, value)| value.map(|value| index_key(field, value)));
    keys.into_iter().flatten()
}

/// A status as records write it.
pub fn status_word(status: CallStatus) -> &'static str {
    match status {
        CallStatus::Ok => "ok",
        CallStatus::ToolError => "tool_error",
        CallStatus::RpcError => "rpc_error",
        CallStatus::Timeout => "timeout",
        CallStatus::Cancelled => "cancelled",
        CallStatus::Denied => "denied",
        CallStatus::InputRequired => "input_required",
        CallStatus::Unknown => "unknown",
    }
}

/// Where a block begins in its segment, and the times of its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockPlace {
    /// Offset of its header in the segment's file.
    pub offset: u64,
    /// Earliest `time_ns`.
    pub min_time_ns: u64,
    /// Latest `time_ns`.
    pub max_time_ns: u64,
}

/// Makes the index of one segment, block after block.
pub struct IndexBuilder {
    first: u64,
    places: Vec<BlockPlace>,
    keys: BTreeMap<u64, BlockSet>,
}

impl IndexBuilder {
    /// For the segment whose first leaf is `first`.
    pub fn new(first: u64) -> Self {
        Self { first, places: Vec::with_capacity(SEGMENT_BLOCKS as usize), keys: BTreeMap::new() }
    }

    /// Begins the next block; false when the segment has all of its blocks.
    pub fn block(&mut self, place: BlockPlace) -> bool {
        let room = (self.places.len() as u64) < SEGMENT_BLOCKS;
        if room {
            self.places.push(place);
        }
        room
    }

    /// Adds a record to the block that was begun last.
    pub fn record(&mut self, record: &Record<'_>) {
        let Some(n) = self.places.len().checked_sub(1).and_then(|n| u8::try_from(n).ok()) else { return };
        for key in index_keys(record) {
            self.keys.entry(key).or_default().insert(n);
        }
    }

    /// The bytes; `None` while blocks are missing. `root` is the segment's, from its footer.
    pub fn encode(&self, root: &Hash) -> Option<Vec<u8>> {
        if self.places.len() as u64 != SEGMENT_BLOCKS {
            return None;
        }
        let (mut table, mut lists) = (Vec::with_capacity(self.keys.len() * ENTRY_LEN), Vec::new());
        for (key, blocks) in &self.keys {
            table.extend_from_slice(&key.to_le_bytes());
            table.extend_from_slice(&u32::try_from(lists.len()).ok()?.to_le_bytes());
            push_blocks(&mut lists, blocks);
        }
        let mut out = Vec::with_capacity(HEADER_LEN + PLACES_LEN + table.len() + lists.len() + SUM_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&root.0);
        out.extend_from_slice(&u32::try_from(self.keys.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(lists.len()).ok()?.to_le_bytes());
        for place in &self.places {
            out.extend_from_slice(&place.offset.to_le_bytes());
            out.extend_from_slice(&place.min_time_ns.to_le_bytes());
            out.extend_from_slice(&place.max_time_ns.to_le_bytes());
        }
        out.extend_from_slice(&table);
        out.extend_from_slice(&lists);
        let sum = Hash::of(&out);
        out.extend_from_slice(&sum.0);
        Some(out)
    }
}

fn push_blocks(lists: &mut Vec<u8>, blocks: &BlockSet) {
    if blocks.len() <= MAX_LISTED {
        lists.push(blocks.len() as u8);
        lists.extend(blocks.iter());
    } else {
        lists.push(AS_BITS);
        lists.extend_from_slice(&blocks.to_bytes());
    }
}

/// Why bytes are no index that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an index: {0}")]
pub struct IndexError(&'static str);

/// An index, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    first: u64,
    root: Hash,
    entries: usize,
    bytes: Vec<u8>,
}

impl SegmentIndex {
    /// Reads the bytes. The checksum finds what a disk does to them; it keeps nobody from writing
    /// others (see the module).
    pub fn decode(mut bytes: Vec<u8>) -> Result<Self, IndexError> {
        if bytes.len() > MAX_INDEX_BYTES || bytes.len() < HEADER_LEN + PLACES_LEN + SUM_LEN {
            return Err(IndexError("its length is out of bounds"));
        }
        let sum = bytes.split_off(bytes.len() - SUM_LEN);
        if Hash::of(&bytes).0 != *sum {
            return Err(IndexError("its checksum does not hold"));
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(IndexError("it does not begin with its mark"));
        }
        let first = u64_at(&bytes, 8).ok_or(IndexError("it is cut"))?;
        let root = bytes.get(16..).and_then(|rest| rest.first_chunk().copied()).map(Hash);
        let (entries, lists) = u32_at(&bytes, 48).zip(u32_at(&bytes, 52)).ok_or(IndexError("it is cut"))?;
        let (entries, lists) = (entries as usize, lists as usize);
        if HEADER_LEN + PLACES_LEN + entries * ENTRY_LEN + lists != bytes.len() {
            return Err(IndexError("its parts do not fit its length"));
        }
        Ok(Self { first, root: root.ok_or(IndexError("it is cut"))?, entries, bytes })
    }

    /// Whether it was made of this segment.
    pub fn is_of(&self, first: u64, root: &Hash) -> bool {
        self.first == first && self.root == *root
    }

    /// Where block `n` is; `None` when that cannot be.
    pub fn place(&self, n: u8) -> Option<BlockPlace> {
        let at = HEADER_LEN + usize::from(n) * PLACE_LEN;
        let offset = u64_at(&self.bytes, at)?;
        let lowest = SEGMENT_HEADER_LEN as u64 + u64::from(n) * BLOCK_HEADER_LEN as u64;
        let place = BlockPlace {
            offset,
            min_time_ns: u64_at(&self.bytes, at + 8)?,
            max_time_ns: u64_at(&self.bytes, at + 16)?,
        };
        (offset >= lowest).then_some(place)
    }

    /// The blocks that may hold a record with this key.
    pub fn blocks(&self, key: u64) -> BlockSet {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = HEADER_LEN + PLACES_LEN + middle * ENTRY_LEN;
            match u64_at(&self.bytes, at) {
                Some(found) if found == key => return self.list(at).unwrap_or(BlockSet::ALL),
                Some(found) if found < key => low = middle + 1,
                _ => high = middle,
            }
        }
        BlockSet::default()
    }

    fn list(&self, entry: usize) -> Option<BlockSet> {
        let lists = HEADER_LEN + PLACES_LEN + self.entries * ENTRY_LEN;
        let list = self.bytes.get(lists + u32_at(&self.bytes, entry + 8)? as usize..)?;
        let (count, rest) = list.split_first()?;
        let mut blocks = BlockSet::default();
        if *count == AS_BITS {
            blocks = BlockSet::from_bytes(rest.first_chunk()?);
        } else {
            rest.get(..usize::from(*count))?.iter().for_each(|n| blocks.insert(*n));
        }
        Some(blocks)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// First index of block `n` of the segment that begins at `first`.
pub fn block_first(first: u64, n: u8) -> u64 {
    first + u64::from(n) * BLOCK_RECORDS
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn built(sets: &[(u64, Vec<u8>)]) -> SegmentIndex {
        let mut builder = IndexBuilder::new(65_536);
        assert_eq!(builder.encode(&Hash::ZERO), None, "a segment without its blocks has no index");
        for n in 0..256 {
            let offset = 80 + n * 200;
            assert!(builder.block(BlockPlace { offset, min_time_ns: n, max_time_ns: n + 1 }));
        }
        assert!(!builder.block(BlockPlace::default()));
        for (key, blocks) in sets {
            blocks.iter().for_each(|n| builder.keys.entry(*key).or_default().insert(*n));
        }
        SegmentIndex::decode(builder.encode(&Hash([7; 32])).unwrap()).unwrap()
    }

    #[test]
    fn fields_do_not_share_keys() {
        assert_ne!(index_key(IndexField::Principal, "ana"), index_key(IndexField::Called, "ana"));
        // The algorithm is part of the format: FNV-1a of "\x01ana".
        assert_eq!(index_key(IndexField::Principal, ""), 0xaf63_bc4c_8601_b62c);
    }

    #[test]
    fn damage_is_refused() {
        let index = built(&[(3, vec![1, 2])]);
        assert!(index.is_of(65_536, &Hash([7; 32])));
        assert!(!index.is_of(0, &Hash([7; 32])) && !index.is_of(65_536, &Hash::ZERO));
        assert_eq!(index.place(5).unwrap().offset, 1_080);
        let mut builder = IndexBuilder::new(0);
        (0..256).for_each(|_| assert!(builder.block(BlockPlace::default())));
        let bytes = builder.encode(&Hash::ZERO).unwrap();
        for at in (0..bytes.len()).step_by(97) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(SegmentIndex::decode(changed).is_err(), "byte {at}");
            assert!(SegmentIndex::decode(bytes[..at].to_vec()).is_err(), "cut at {at}");
        }
        let index = SegmentIndex::decode(bytes).unwrap();
        assert_eq!(index.place(0), None, "no block begins inside of the segment's header");
    }

    proptest! {
        #[test]
        fn every_value_is_found_again(
            sets in proptest::collection::btree_map(any::<u64>(), proptest::collection::btree_set(any::<u8>(), 1..256), 1..40)
        ) {
            let sets: Vec<(u64, Vec<u8>)> = sets.into_iter().map(|(k, s)| (k, s.into_iter().collect())).collect();
            let index = built(&sets);
            for (key, blocks) in &sets {
                prop_assert_eq!(&index.blocks(*key).iter().collect::<Vec<_>>(), blocks);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 6_000..7_000), key in any::<u64>()) {
            // With a checksum that holds, so that what comes after it is reached.
            let mut bytes = bytes;
            bytes[..8].copy_from_slice(&MAGIC);
            let sum = Hash::of(&bytes);
            bytes.extend_from_slice(&sum.0);
            if let Ok(index) = SegmentIndex::decode(bytes) {
                let _ = (index.blocks(key), index.place(3));
            }
        }
    }
}
