//! What stays of a pruned segment, and the record that says why it went.
//!
//! A segment is 65,536 leaves: its root is one node of the tree, so with the roots of the segments
//! that went, proofs of everything that remains can still be made and checked.

use crate::{
    block::{BlockError, SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentFooter, SegmentHeader},
    hash::Hash,
    record::Record,
};

/// The event of a record that says which records are about to be pruned.
pub const PRUNE_EVENT: &str = "log.prune";
/// The event of a record that says that records must be kept.
pub const HOLD_EVENT: &str = "hold.add";
/// The event of a record that says that they need not be kept any more.
pub const RELEASE_EVENT: &str = "hold.remove";

const MAGIC: [u8; 8] = *b"PVPRUNE\x01";
/// Length of an encoded [`PrunedSegment`].
pub const PRUNED_LEN: usize = 8 + SEGMENT_HEADER_LEN + SEGMENT_FOOTER_LEN + 8 + 32;

/// What stays of a segment: its header, its footer, and where the record of its end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedSegment {
    /// Its header: first index, origin, chain before.
    pub header: SegmentHeader,
    /// Its footer: root, chain after.
    pub footer: SegmentFooter,
    /// Index of the `log.prune` record that covers it.
    pub record: u64,
}

impl PrunedSegment {
    /// The bytes: mark, header, footer, index, SHA-256 of all of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PRUNED_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.footer.encode());
        out.extend_from_slice(&self.record.to_le_bytes());
        let sum = Hash::of(&out);
        out.extend_from_slice(&sum.0);
        out
    }

    /// Reads the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        const PART: &str = "pruned segment";
        if bytes.len() != PRUNED_LEN {
            return Err(BlockError::Cut(PART));
        }
        let (body, sum) = bytes.split_at(PRUNED_LEN - 32);
        if !body.starts_with(&MAGIC) {
            return Err(BlockError::Magic(PART));
        }
        if Hash::of(body).0 != *sum {
            return Err(BlockError::Bounds("pruned segment's checksum"));
        }
        let parts = body.split_at(8).1;
        let (header, rest) = parts.split_at(SEGMENT_HEADER_LEN);
        let (footer, record) = rest.split_at(SEGMENT_FOOTER_LEN);
        let (header, footer) = (SegmentHeader::decode(header)?, SegmentFooter::decode(footer)?);
        let record = record.first_chunk().map(|b| u64::from_le_bytes(*b)).ok_or(BlockError::Cut(PART))?;
        let first = header.first_index;
        if first != footer.first_index || !first.is_multiple_of(SEGMENT_LEAVES) || record < first {
            return Err(BlockError::Bounds("pruned segment's indices"));
        }
        Ok(Self { header, footer, record })
    }
}

/// What a `log.prune` record says in its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneNote {
    /// Records before this one go.
    pub to: u64,
    /// RFC 6962 root of all records before `to`.
    pub root: Hash,
    /// Running chain after record `to - 1`.
    pub chain: Hash,
    /// The rule, for people: `keep 400d`.
    pub policy: String,
}

impl PruneNote {
    /// As `event.objects`.
    pub fn objects(&self) -> Vec<String> {
        vec![
            format!("to:{}", self.to),
            format!("root:{}", self.root),
            format!("chain:{}", self.chain),
            format!("policy:{}", self.policy),
        ]
    }

    /// Reads a record; `None` when it is no such record.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        if record.event.as_deref() != Some(PRUNE_EVENT) {
            return None;
        }
        let value = |key: &str| {
            let mut found = record.event_objects.iter().filter_map(|o| o.strip_prefix(key)?.strip_prefix(':'));
            found.next()
        };
        Some(Self {
            to: value("to")?.parse().ok()?,
            root: Hash::parse(value("root")?.as_bytes()).ok()?,
            chain: Hash::parse(value("chain")?.as_bytes()).ok()?,
            policy: value("policy")?.to_owned(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> PrunedSegment {
        PrunedSegment {
            header: SegmentHeader { first_index: 65_536, origin: Hash([1; 32]), chain_in: Hash([2; 32]) },
            footer: SegmentFooter { first_index: 65_536, root: Hash([3; 32]), chain_out: Hash([4; 32]) },
            record: 200_000,
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused() {
        let bytes = example().encode();
        assert_eq!(PrunedSegment::decode(&bytes), Ok(example()));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(PrunedSegment::decode(&changed).is_err(), "byte {at}");
            }
            assert!(PrunedSegment::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let early = PrunedSegment { record: 3, ..example() };
        assert!(PrunedSegment::decode(&early.encode()).is_err(), "its record precedes it");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..250)) {
            let _ = PrunedSegment::decode(&bytes);
        }
    }
}
