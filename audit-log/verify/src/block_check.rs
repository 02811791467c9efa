//! What one run of records (a block, or a part of the tail) shows without its neighbours.
//!
//! This is where nearly all of a verification's time goes: decompression, leaf hashes, the tree
//! over the run, the chain through it, the reading of each record. A block names the chain before
//! it, so that all of it can be judged by any thread; [`crate::pass`] then checks that the runs
//! continue each other.

use std::{ops::Range, sync::Arc};

use provost_audit_core::{
    BLOCK_RECORDS, BodyDecoder, Frontier, Hash, Leaves, RecordReader, RecordView, ViewError, chain_next, hash_runs,
    leaf_hashes, without_checksum,
};

use crate::{
    facts::{Collector, Facts},
    segment_file::BlockPlace,
    walk::ReadFault,
};

/// Blocks that are hashed together.
pub(crate) const BATCH: usize = 16;

/// What a run is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The log's tenant; empty for the cluster's log.
    pub tenant: Arc<str>,
    /// Sizes within the run or at its end that are asked for, and when a checkpoint of each was signed
    /// (0: none was).
    pub marks: Vec<(u64, u64)>,
    /// When the newest checkpoint before the run was signed.
    pub signed_ns: u64,
}

/// What a run shows.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Leaf hashes; empty for a block, whose root is enough.
    pub hashes: Vec<Hash>,
    /// Root of the run, when it is a block.
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

impl LeafFault {
    /// In words. `chain_holds`: whether the block's chain ends where its header says, bad records and
    /// all; the tail has no such chain.
    pub(crate) fn attack(&self, chain_holds: Option<bool>) -> String {
        let text = match (self, chain_holds) {
            (LeafFault::Form(e), _) => return format!("the record is not in its form: {e}"),
            (_, Some(true)) => {
                "the stored hash of a record was changed; the block's chain says that the record was not"
            }
            (_, Some(false)) => "a record was changed after it was written",
            (_, None) => {
                "a record or its stored hash was changed after it was written (or, beyond the last checkpoint, a \
                 write was torn by a power cut: start the node once, then verify again)"
            }
        };
        text.to_owned()
    }

    /// The hash that is stored, and the record's.
    pub(crate) fn hashes(&self) -> Option<(Hash, Hash)> {
        match self {
            LeafFault::Hash { stored, actual } => Some((*stored, *actual)),
            LeafFault::Form(_) => None,
        }
    }
}

/// Room that one thread uses again for each run.
#[derive(Default)]
pub(crate) struct Scratch {
    decoder: BodyDecoder,
    stored: Vec<u8>,
    raw: Vec<u8>,
    leaves: Vec<Range<usize>>,
    reader: RecordReader,
}

/// Reads blocks and checks them. Up to [`BATCH`] of them are hashed together.
pub(crate) fn check_blocks(blocks: &[(BlockPlace, Ask)], scratch: &mut Scratch) -> Vec<Result<Seen, ReadFault>> {
    let mut checked: Vec<_> = blocks.iter().map(|(place, ask)| check_block(place, ask, scratch)).collect();
    let seen = checked.iter().zip(blocks).filter_map(|(seen, (place, _))| Some((place, seen.as_ref().ok()?)));
    let runs: Vec<_> = seen.map(|(place, seen)| (place.header.chain_in, seen.hashes.as_slice())).collect();
    let hashed = hash_runs(&runs);
    for (seen, (chain, root)) in checked.iter_mut().flatten().zip(hashed) {
        (seen.chain, seen.root, seen.hashes) = (chain, Some(root), Vec::new());
    }
    checked
}

/// All but the chain behind it, and the root.
fn check_block(place: &BlockPlace, ask: &Ask, scratch: &mut Scratch) -> Result<Seen, ReadFault> {
    if !place.read_body(&mut scratch.stored).map_err(|e| place.fault(e))? {
        return Err(ReadFault { missing: true, ..place.fault("the segment became shorter") });
    }
    let Scratch { decoder, stored, raw, leaves, reader } = scratch;
    without_checksum(stored);
    decoder.decode(&place.header, stored, raw).map_err(|e| place.fault(e))?;
    leaves.clear();
    for leaf in Leaves::new(raw) {
        leaves.push(leaf.map_err(|e| place.fault(e))?);
    }
    if leaves.len() as u64 != BLOCK_RECORDS {
        return Err(place.fault(format!("the block holds {} records", leaves.len())));
    }
    let first = (place.header.first_index, place.header.chain_in);
    Ok(check_leaves((raw, leaves), &place.read_hashes(), first, ask, reader))
}

/// Checks a run of leaves that is in no block; `first` is the index of its first and the chain
/// before it.
pub(crate) fn check_run(leaves: (&[u8], &[Range<usize>]), stored: &[Hash], first: (u64, Hash), ask: &Ask) -> Seen {
    let mut seen = check_leaves(leaves, stored, first, ask, &mut RecordReader::default());
    seen.chain = seen.hashes.iter().fold(first.1, |chain, hash| chain_next(&chain, hash));
    seen
}

/// All but the chain behind the leaves, which are given as bytes and ranges of them.
fn check_leaves(
    leaves: (&[u8], &[Range<usize>]),
    stored: &[Hash],
    first: (u64, Hash),
    ask: &Ask,
    reader: &mut RecordReader,
) -> Seen {
    let (raw, leaves) = leaves;
    let (start, mut chain) = first;
    let mut collector = Collector::new(&ask.tenant);
    let mut signed_ns = ask.signed_ns;
    let mut pending = ask.marks.iter().copied().peekable();
    let mut marks = Vec::new();
    let mut part = Frontier::default();
    let mut fault = None;
    let mut hashes = Vec::new();
    leaf_hashes(raw, leaves, &mut hashes);
    for (n, (range, hash)) in leaves.iter().zip(&hashes).enumerate() {
        let (leaf, index) = (raw.get(range.clone()).unwrap_or_default(), start + n as u64);
        fault = check_leaf(reader, leaf, hash, stored.get(n), |view| {
            collector.observe(index, view, leaf, *hash, signed_ns);
        })
        .map(|fault| (index, fault));
        if fault.is_some() {
            break;
        }
        // Chain and tree are made for the whole run at once, except where a checkpoint is within it.
        if pending.peek().is_some() {
            chain = chain_next(&chain, hash);
            part.append(*hash);
            if let Some((size, time_ns)) = pending.next_if(|mark| mark.0 == index + 1) {
                signed_ns = signed_ns.max(time_ns);
                marks.push((size, part.clone(), chain));
            }
        }
    }
    let hashes_short = stored.len() < hashes.len();
    Seen { hashes, root: None, chain, marks, facts: collector.finish(), fault, hashes_short }
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
