//! What one run of records (a block, or a part of the tail) shows without its neighbours.
//!
//! This is where nearly all of a verification's time goes: decompression, leaf hashes, the tree
//! over the run, the chain through it, the reading of each record. A block names the chain before
//! it, so that all of it can be judged by any thread; [`crate::pass`] then checks that the runs
//! continue each other.

use std::{ops::Range, sync::Arc};

use provost_audit_core::{
    BLOCK_RECORDS, BodyDecoder, Frontier, Hash, Leaves, RecordReader, RecordView, ViewError, chain_next, leaf_hashes,
    node_level,
};

use crate::{
    facts::{Collector, Facts},
    segment_file::BlockPlace,
    walk::ReadFault,
};

/// What a run is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The log's tenant; empty for the cluster's log.
    pub tenant: Arc<str>,
    /// Checkpoints within the run or at its end: size, and when it was signed.
    pub marks: Vec<(u64, u64)>,
    /// When the newest checkpoint before the run was signed.
    pub signed_ns: u64,
}

/// What a run shows.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Leaf hashes; empty for a full run, whose root is enough.
    pub hashes: Vec<Hash>,
    /// Root of the run, when it is a full one.
    pub root: Option<Hash>,
    /// Running chain after the run.
    pub chain: Hash,
    /// For each mark: tree over the run up to there, and the chain there.
    pub marks: Vec<(u64, Frontier, Hash)>,
    pub facts: Facts,
    /// The first record that is wrong; nothing behind it was looked at, except for the chain.
    pub fault: Option<(u64, LeafFault)>,
    /// Whether fewer leaf hashes are stored than there are records.
    pub hashes_short: bool,
}

/// What is wrong with one record.
#[derive(Debug)]
pub(crate) enum LeafFault {
    /// It is not what its stored leaf hash says.
    Hash { stored: Hash, actual: Hash },
    /// It is no canonical record.
    Form(ViewError),
}

/// Room that one thread uses again for each run.
#[derive(Default)]
pub(crate) struct Scratch {
    decoder: BodyDecoder,
    stored: Vec<u8>,
    raw: Vec<u8>,
    leaves: Vec<Range<usize>>,
    room: Room,
}

/// The part of it that any run needs.
#[derive(Default)]
pub(crate) struct Room {
    hashes: Vec<Hash>,
    reader: RecordReader,
}

/// Reads a block and checks it.
pub(crate) fn check_block(place: &BlockPlace, ask: &Ask, scratch: &mut Scratch) -> Result<Seen, ReadFault> {
    if !place.read_body(&mut scratch.stored).map_err(|e| place.fault(e))? {
        return Err(ReadFault { missing: true, ..place.fault("the segment became shorter") });
    }
    let Scratch { decoder, stored, raw, leaves, room } = scratch;
    decoder.decode(&place.header, stored, raw).map_err(|e| place.fault(e))?;
    leaves.clear();
    for leaf in Leaves::new(raw) {
        leaves.push(leaf.map_err(|e| place.fault(e))?);
    }
    if leaves.len() as u64 != BLOCK_RECORDS {
        return Err(place.fault(format!("the block holds {} records", leaves.len())));
    }
    let first = (place.header.first_index, place.header.chain_in);
    Ok(check_leaves((raw, leaves), &place.read_hashes(), first, ask, room))
}

/// Checks a run of leaves, given as bytes and ranges of them; `first` is the index of its first and
/// the chain before it.
pub(crate) fn check_leaves(
    leaves: (&[u8], &[Range<usize>]),
    stored: &[Hash],
    first: (u64, Hash),
    ask: &Ask,
    room: &mut Room,
) -> Seen {
    let Room { hashes, reader } = room;
    let (raw, leaves) = leaves;
    let (start, mut chain) = first;
    let mut collector = Collector::new(&ask.tenant);
    let mut signed_ns = ask.signed_ns;
    let mut pending = ask.marks.iter().copied().peekable();
    let mut marks = Vec::new();
    let mut part = Frontier::default();
    let mut fault = None;
    leaf_hashes(raw, leaves, hashes);
    for (n, (range, hash)) in leaves.iter().zip(hashes.iter()).enumerate() {
        let (leaf, index) = (raw.get(range.clone()).unwrap_or_default(), start + n as u64);
        if fault.is_none() {
            fault = check_leaf(reader, leaf, hash, stored.get(n), |view| {
                collector.observe(index, view, leaf, *hash, signed_ns);
            })
            .map(|fault| (index, fault));
        }
        chain = chain_next(&chain, hash);
        if !ask.marks.is_empty() && fault.is_none() {
            part.append(*hash);
            if let Some((size, time_ns)) = pending.next_if(|mark| mark.0 == index + 1) {
                signed_ns = time_ns;
                marks.push((size, part.clone(), chain));
            }
        }
    }
    let hashes_short = stored.len() < hashes.len();
    let root = full_root(hashes);
    let kept = if root.is_some() { Vec::new() } else { std::mem::take(hashes) };
    Seen { hashes: kept, root, chain, marks, facts: collector.finish(), fault, hashes_short }
}

fn check_leaf(
    reader: &mut RecordReader,
    leaf: &[u8],
    hash: &Hash,
    stored: Option<&Hash>,
    observe: impl FnOnce(&RecordView<'_>),
) -> Option<LeafFault> {
    if let Some(stored) = stored.filter(|stored| *stored != hash) {
        return Some(LeafFault::Hash { stored: *stored, actual: *hash });
    }
    match reader.read(leaf) {
        Ok(view) => {
            observe(&view);
            None
        }
        Err(e) => Some(LeafFault::Form(e)),
    }
}

/// The RFC 6962 root of a full run.
fn full_root(hashes: &[Hash]) -> Option<Hash> {
    if hashes.len() as u64 != BLOCK_RECORDS {
        return None;
    }
    let mut level = node_level(hashes);
    while level.len() > 1 {
        level = node_level(&level);
    }
    level.first().copied()
}

#[cfg(test)]
mod tests {
    use provost_audit_core::leaf_hash;

    use super::*;

    #[test]
    fn the_quick_root_is_the_tree_s() {
        let hashes: Vec<Hash> = (0u32..256).map(|n| leaf_hash(&n.to_le_bytes())).collect();
        let expect = provost_audit_core::root_of(&hashes);
        assert_eq!(full_root(&hashes), Some(expect));
        assert_eq!(full_root(&hashes[..255]), None);
    }
}
