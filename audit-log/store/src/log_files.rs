//! The files of one log: segment, leaf hashes and tail, written as records are applied.
//!
//! A record first stands in the tail. When 256 are together they are compressed into a block and
//! appended to the segment, their hashes to the `.leaf` file. The tail goes on through several
//! blocks, then a new one begins; the old one is removed once a persisted state no longer needs
//! it. Nothing here is fsynced: [`crate::persist`] does that.
//! If the process dies between two writes, the next start cuts every file back to the last
//! persisted state and the Raft log brings the rest again.

use std::{fs, io, path::PathBuf, sync::Arc};

use provost_audit_core::{
    BLOCK_RECORDS, Frontier, Hash, LogId, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentFooter, SegmentHeader,
    TAIL_HEADER_LEN, TailHeader, chain_next, encode_block, push_tail_frame,
};
use provost_audit_verify::{KEY_FILE, LogLayout};

use crate::{
    body_files::BodyFiles,
    disk::{Disk, StoreFile},
    error::AuditError,
    state::LogHead,
};

/// Blocks that a tail goes on for: fewer files are made, and at most this much is kept twice.
const TAIL_BLOCKS: u64 = 16;
/// The levels of a tree over one block.
const BLOCK_LEVEL: u32 = BLOCK_RECORDS.trailing_zeros();

/// One log, open for appending.
pub(crate) struct LogFiles {
    layout: LogLayout,
    disk: Disk,
    origin: String,
    pub head: LogHead,
    block: OpenBlock,
    /// Roots of the blocks of the current segment.
    segment_tree: Frontier,
    segment: Option<SegmentFiles>,
    tail: Arc<StoreFile>,
    bodies: BodyFiles,
    /// Frames that are not written yet.
    pending: Vec<u8>,
    dirty: Dirty,
}

struct SegmentFiles {
    records: Arc<StoreFile>,
    hashes: Arc<StoreFile>,
}

/// What the next persist must make durable, and may then remove.
#[derive(Default)]
pub(crate) struct Dirty {
    pub files: Vec<Arc<StoreFile>>,
    pub dirs: Vec<PathBuf>,
    pub remove: Vec<PathBuf>,
}

/// Records that do not fill a block yet.
struct OpenBlock {
    first: u64,
    raw: Vec<u8>,
    hashes: Vec<Hash>,
    chain_in: Hash,
    times: (u64, u64),
}

impl OpenBlock {
    fn new(first: u64, chain_in: Hash) -> Self {
        let hashes = Vec::with_capacity(BLOCK_RECORDS as usize);
        Self { first, raw: Vec::new(), hashes, chain_in, times: (u64::MAX, 0) }
    }

    fn push(&mut self, leaf: &[u8], hash: Hash, time_ns: u64) {
        self.raw.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(leaf);
        self.hashes.push(hash);
        self.times = (self.times.0.min(time_ns), self.times.1.max(time_ns));
    }
}

impl LogFiles {
    /// Makes an empty log. `public_key` is written beside it, in C2SP form.
    pub(crate) fn create(disk: &Disk, layout: LogLayout, origin: &str, public_key: &str) -> Result<Self, AuditError> {
        Self::begin(disk, layout, origin, public_key, LogHead::empty(origin))
    }

    /// Makes a log whose records before `head`, the first of a segment, were pruned.
    pub(crate) fn begin(
        disk: &Disk,
        layout: LogLayout,
        origin: &str,
        public_key: &str,
        mut head: LogHead,
    ) -> Result<Self, AuditError> {
        let dir = layout.dir.clone();
        disk.make_dir(&layout.segments()).map_err(AuditError::io(&dir))?;
        let key = dir.join(KEY_FILE);
        let mut dirty = Dirty::default();
        if !key.exists() {
            let key_file = disk.create(&key).map_err(AuditError::io(&key))?;
            key_file.write_all_at(format!("{public_key}\n").as_bytes(), 0).map_err(AuditError::io(&key))?;
            dirty.files.push(key_file);
        }
        let first = head.size();
        let (tail, len) = create_tail(disk, &layout, first, head.chain).map_err(AuditError::io(&dir))?;
        (head.tail_first, head.tail_len) = (first, len);
        dirty.files.push(tail.clone());
        dirty.dirs.extend([layout.segments(), dir.clone()]);
        dirty.dirs.extend(dir.ancestors().skip(1).take(2).map(PathBuf::from));
        Ok(Self {
            disk: disk.clone(),
            origin: origin.to_owned(),
            block: OpenBlock::new(first, head.chain),
            segment_tree: Frontier::default(),
            segment: None,
            tail,
            bodies: BodyFiles::default(),
            pending: Vec::new(),
            dirty,
            layout,
            head,
        })
    }

    /// Removes the tail of these older files of the log at the next persist.
    pub(crate) fn replace(&mut self, older: &LogHead) {
        self.dirty.remove.push(self.layout.tail(older.tail_first));
    }

    /// Appends one leaf; gives its index. Nothing is on disk before [`LogFiles::flush`].
    pub(crate) fn append(&mut self, leaf: &[u8], hash: Hash, time_ns: u64) -> io::Result<u64> {
        let index = self.head.size();
        self.head.chain = chain_next(&self.head.chain, &hash);
        self.head.frontier.append(hash);
        push_tail_frame(&mut self.pending, leaf, &hash);
        self.block.push(leaf, hash, time_ns);
        if self.block.hashes.len() as u64 == BLOCK_RECORDS {
            self.flush()?;
            self.close_block()?;
        }
        Ok(index)
    }

    /// Puts the sealed body of record `index` beside the log; written with the next flush.
    pub(crate) fn append_body(&mut self, index: u64, body: &[u8]) -> io::Result<()> {
        let Self { bodies, disk, layout, origin, head, dirty, .. } = self;
        bodies.append((disk, layout, origin), &mut head.bodies, dirty, (index, body))
    }

    /// Writes what was appended.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.bodies.flush(&mut self.head.bodies, &mut self.dirty)?;
        if self.pending.is_empty() {
            return Ok(());
        }
        self.tail.write_all_at(&self.pending, self.head.tail_len)?;
        self.head.tail_len += self.pending.len() as u64;
        self.pending.clear();
        let tail = self.tail.clone();
        self.dirty.add(&tail);
        Ok(())
    }

    /// What the next persist has to make durable.
    pub(crate) fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    fn close_block(&mut self) -> io::Result<()> {
        let next = self.head.size();
        let block = std::mem::replace(&mut self.block, OpenBlock::new(next, self.head.chain));
        let chain = (block.chain_in, self.head.chain);
        let mut bytes = encode_block(block.first, &block.raw, block.times, chain).map_err(io::Error::other)?;
        let segment_first = block.first - block.first % SEGMENT_LEAVES;
        self.open_segment(segment_first, block.chain_in)?;
        let Some(files) = &self.segment else { return Err(io::Error::other("no segment")) };
        let hashes: Vec<u8> = block.hashes.iter().flat_map(|h| h.0).collect();
        files.hashes.write_all_at(&hashes, (block.first - segment_first) * 32)?;
        let root = provost_audit_core::root_of(&block.hashes);
        self.segment_tree.append_subtree(root, BLOCK_LEVEL);
        let full = next == segment_first + SEGMENT_LEAVES;
        if full {
            let root = self.segment_tree.root();
            let chain_out = self.head.chain;
            let footer = SegmentFooter { first_index: segment_first, root, chain_out };
            bytes.extend_from_slice(&footer.encode());
        }
        files.records.write_all_at(&bytes, self.head.segment_len)?;
        self.head.segment_len += bytes.len() as u64;
        self.dirty.add(&files.records);
        self.dirty.add(&files.hashes);
        if full {
            self.segment = None;
            self.segment_tree = Frontier::default();
            self.head.segment_len = 0;
        }
        if next - self.head.tail_first >= TAIL_BLOCKS * BLOCK_RECORDS {
            self.rotate_tail()?;
        }
        Ok(())
    }

    fn open_segment(&mut self, first: u64, chain_in: Hash) -> io::Result<()> {
        if self.segment.is_some() {
            return Ok(());
        }
        let records = self.disk.create(&self.layout.segment(first))?;
        let hashes = self.disk.create(&self.layout.leaf_hashes(first))?;
        let origin = Hash::of(self.origin.as_bytes());
        let header = SegmentHeader { first_index: first, origin, chain_in };
        records.write_all_at(&header.encode(), 0)?;
        self.head.segment_len = SEGMENT_HEADER_LEN as u64;
        self.dirty.dirs.push(self.layout.segments());
        self.segment = Some(SegmentFiles { records, hashes });
        Ok(())
    }

    fn rotate_tail(&mut self) -> io::Result<()> {
        let next = self.head.size();
        let old = self.layout.tail(self.head.tail_first);
        let (tail, len) = create_tail(&self.disk, &self.layout, next, self.head.chain)?;
        self.dirty.remove.push(old);
        self.dirty.dirs.push(self.layout.dir.clone());
        self.dirty.add(&tail);
        self.tail = tail;
        self.head.tail_first = next;
        self.head.tail_len = len;
        Ok(())
    }

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

impl Dirty {
    pub(crate) fn add(&mut self, file: &Arc<StoreFile>) {
        if !self.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            self.files.push(file.clone());
        }
    }

    pub(crate) fn merge(&mut self, other: Dirty) {
        self.files.extend(other.files);
        self.remove.extend(other.remove);
        self.dirs.extend(other.dirs);
        self.dirs.sort();
        self.dirs.dedup();
    }
}

pub(crate) type Differs<'a> = &'a dyn Fn(String) -> AuditError;

fn create_tail(disk: &Disk, layout: &LogLayout, first: u64, chain_in: Hash) -> io::Result<(Arc<StoreFile>, u64)> {
    let file = disk.create(&layout.tail(first))?;
    file.write_all_at(&TailHeader { first_index: first, chain_in }.encode(), 0)?;
    Ok((file, TAIL_HEADER_LEN as u64))
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
    let hashes = provost_audit_verify::LeafHashes::open(layout.clone()).map_err(|e| differs(e.to_string()))?;
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
    use provost_audit_core::{RecordView, leaf_hash};
    let mut chain = head.chain;
    let mut block = OpenBlock::new(first, head.chain);
    let mut reader = provost_audit_verify::LogReader::from_segment(layout.clone(), segment_first)
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
    let mut reader = provost_audit_verify::LogReader::from_segment(layout.clone(), before)
        .with_filter(Box::new(move |header| header.first_index + BLOCK_RECORDS == first));
    let chunk = reader.next().map_err(|e| differs(e.to_string()))?;
    let footer = chunk.and_then(|chunk| chunk.footer.clone());
    footer.map(|f| f.chain_out).ok_or_else(|| differs("the segment before has no footer".to_owned()))
}
