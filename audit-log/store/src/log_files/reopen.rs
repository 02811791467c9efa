//! Opening the files of a log at a start: cut back to what was made durable, and compared with it.

use std::{fs, io, path::PathBuf, sync::Arc};

use provost_audit_core::{
    BLOCK_RECORDS, Frontier, Hash, LogId, RecordView, SEGMENT_LEAVES, TailHeader, chain_next, leaf_hash,
};
use provost_audit_verify::{LeafHashes, LogLayout, LogReader};

use super::{
    Dirty, LogFiles, SegmentFiles,
    open_block::{BLOCK_LEVEL, OpenBlock},
};
use crate::{
    body_files::BodyFiles,
    disk::{Disk, StoreFile},
    error::AuditError,
    state::LogHead,
};

/// Says that a log's files are not what was made durable.
pub(crate) type Differs<'a> = &'a dyn Fn(String) -> AuditError;

impl LogFiles {
    /// Opens a log as `head` describes it: whatever reaches further is cut off, it will be
    /// applied again; whatever is missing or differs is refused.
    pub(crate) fn reopen(
        disk: &Disk,
        log: &LogId,
        layout: LogLayout,
        origin: &str,
        head: LogHead,
    ) -> Result<Self, AuditError> {
        let differs = |why: String| AuditError::Differs { log: log.clone(), why };
        let first = head.size() - head.size() % BLOCK_RECORDS;
        let segment_first = head.size() - head.size() % SEGMENT_LEAVES;
        cut_segments(disk, &layout, segment_first, first, &head, &differs)?;
        let tail = cut_tails(disk, &layout, &head, &differs)?;
        let segment_tree = check_hashes(&layout, segment_first, first, &head, &differs)?;
        let segment = if head.segment_len > 0 {
            let open = |path: PathBuf| disk.open(&path).map_err(AuditError::io(&path));
            Some(SegmentFiles {
                records: open(layout.segment(segment_first))?,
                hashes: open(layout.leaf_hashes(segment_first))?,
            })
        } else {
            None
        };
        let bodies = BodyFiles::reopen(disk, &layout, &head, &differs)?;
        let block = read_open_block(&layout, segment_first, first, &head, &differs)?;
        Ok(Self {
            layout,
            disk: disk.clone(),
            origin: origin.to_owned(),
            head,
            block,
            segment_tree,
            segment,
            tail,
            bodies,
            pending: Vec::new(),
            dirty: Dirty::default(),
        })
    }
}

/// Cuts the open segment to its persisted length and removes later ones.
fn cut_segments(
    disk: &Disk,
    layout: &LogLayout,
    segment_first: u64,
    block_first: u64,
    head: &LogHead,
    differs: Differs<'_>,
) -> Result<(), AuditError> {
    let dir = layout.segments();
    for first in layout.list_segments().map_err(AuditError::io(&dir))? {
        if first > segment_first || (first == segment_first && head.segment_len == 0) {
            for path in [layout.segment(first), layout.leaf_hashes(first)] {
                disk.remove(&path).map_err(AuditError::io(&path))?;
            }
        }
    }
    if head.segment_len > 0 {
        let hashes = (block_first - segment_first) * 32;
        cut(disk, layout.segment(segment_first), head.segment_len, differs)?;
        cut(disk, layout.leaf_hashes(segment_first), hashes, differs)?;
    }
    Ok(())
}

/// Cuts the tail to its persisted length and removes the others.
fn cut_tails(
    disk: &Disk,
    layout: &LogLayout,
    head: &LogHead,
    differs: Differs<'_>,
) -> Result<Arc<StoreFile>, AuditError> {
    for first in layout.list_tails().map_err(AuditError::io(&layout.dir))? {
        if first != head.tail_first {
            let path = layout.tail(first);
            disk.remove(&path).map_err(AuditError::io(&path))?;
        }
    }
    cut(disk, layout.tail(head.tail_first), head.tail_len, differs)
}

/// Opens a file and cuts it to its durable length.
pub(crate) fn cut(disk: &Disk, path: PathBuf, len: u64, differs: Differs<'_>) -> Result<Arc<StoreFile>, AuditError> {
    let name = path.display();
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(differs(format!("{name} is missing")));
        }
        Err(e) => return Err(AuditError::io(&path)(e)),
    };
    let found = file.len().map_err(AuditError::io(&path))?;
    if found < len {
        return Err(differs(format!("{name} has {found} bytes; {len} were made durable")));
    }
    if found > len {
        file.set_len(len).map_err(AuditError::io(&path))?;
    }
    Ok(file)
}

/// Compares footers and stored leaf hashes with the persisted tree; gives the open segment's part
/// of it. (Bodies of closed blocks are left to `provost audit verify`: reading a large log whole
/// at each start would make restarts slow.)
fn check_hashes(
    layout: &LogLayout,
    segment_first: u64,
    block_first: u64,
    head: &LogHead,
    differs: Differs<'_>,
) -> Result<Frontier, AuditError> {
    let hashes = LeafHashes::open(layout.clone()).map_err(|e| differs(e.to_string()))?;
    let size = head.size();
    if hashes.size() != size {
        return Err(differs(format!("{} records are readable of {size}", hashes.size())));
    }
    let root = hashes.root(0..size).map_err(|e| differs(e.to_string()))?;
    if root != head.frontier.root() {
        let want = head.frontier.root();
        return Err(differs(format!("its tree has root {root}; {want} was made durable")));
    }
    let mut tree = Frontier::default();
    let mut at = segment_first;
    while at < block_first {
        let block = hashes.root(at..at + BLOCK_RECORDS).map_err(|e| differs(e.to_string()))?;
        tree.append_subtree(block, BLOCK_LEVEL);
        at += BLOCK_RECORDS;
    }
    Ok(tree)
}

/// The records after the last full block, from the tail; their bytes are hashed again.
fn read_open_block(
    layout: &LogLayout,
    segment_first: u64,
    first: u64,
    head: &LogHead,
    differs: Differs<'_>,
) -> Result<OpenBlock, AuditError> {
    let mut chain = head.chain;
    let mut block = OpenBlock::new(first, head.chain);
    let mut reader = LogReader::from_segment(layout.clone(), segment_first)
        .with_filter(Box::new(move |header| header.first_index + BLOCK_RECORDS == first));
    while let Some(chunk) = reader.next().map_err(|e| differs(e.to_string()))? {
        if let Some(header) = &chunk.header {
            chain = header.chain_out;
            block.chain_in = chain;
            continue;
        }
        if first == segment_first {
            // No block of this segment yet: what came before is the tail header's, or a footer's.
            chain = chain_before(layout, head, first, differs)?;
            block.chain_in = chain;
        }
        for ((index, leaf), stored) in chunk.iter().zip(&chunk.hashes) {
            let hash = leaf_hash(leaf);
            if hash != *stored {
                return Err(differs(format!("record {index} is not what was written")));
            }
            let view = RecordView::read(leaf).map_err(|e| differs(e.to_string()))?;
            chain = chain_next(&chain, &hash);
            block.push(leaf, hash, view.time_ns);
        }
    }
    if !block.hashes.is_empty() && chain != head.chain {
        return Err(differs(format!("its chain ends in {chain}; {} was durable", head.chain)));
    }
    Ok(block)
}

/// The running chain before the segment's first leaf.
fn chain_before(layout: &LogLayout, head: &LogHead, first: u64, differs: Differs<'_>) -> Result<Hash, AuditError> {
    if head.tail_first == first {
        let path = layout.tail(first);
        let bytes = fs::read(&path).map_err(AuditError::io(&path))?;
        return TailHeader::decode(&bytes).map(|header| header.chain_in).map_err(|e| differs(e.to_string()));
    }
    // The tail began in the segment before, whose footer holds the chain.
    let before = first
        .checked_sub(SEGMENT_LEAVES)
        .ok_or_else(|| differs("the tail begins after the first record and no segment precedes it".to_owned()))?;
    let mut reader = LogReader::from_segment(layout.clone(), before)
        .with_filter(Box::new(move |header| header.first_index + BLOCK_RECORDS == first));
    let chunk = reader.next().map_err(|e| differs(e.to_string()))?;
    let footer = chunk.and_then(|chunk| chunk.footer.clone());
    footer.map(|f| f.chain_out).ok_or_else(|| differs("the segment before has no footer".to_owned()))
}
