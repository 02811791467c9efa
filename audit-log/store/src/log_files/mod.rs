//! The files of one log: segment, leaf hashes and tail, written as records are applied.
//!
//! A record first stands in the tail. When 256 are together they are compressed into a block and
//! appended to the segment, their hashes to the `.leaf` file. The tail goes on through several
//! blocks, then a new one begins; the old one is removed once a persisted state no longer needs
//! it. Nothing here is fsynced: [`crate::persist`] does that.
//! If the process dies between two writes, the next start cuts every file back to the last
//! persisted state and the Raft log brings the rest again.

mod dirty;
mod open_block;
mod reopen;

use std::{io, path::PathBuf, sync::Arc};

use provost_audit_core::{
    BLOCK_RECORDS, Frontier, Hash, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentFooter, SegmentHeader, TAIL_HEADER_LEN,
    TailHeader, chain_next, encode_block, push_tail_frame,
};
use provost_audit_verify::{KEY_FILE, LogLayout};

use self::open_block::{BLOCK_LEVEL, OpenBlock};
pub(crate) use self::{
    dirty::Dirty,
    reopen::{Differs, cut},
};
use crate::{
    body_files::BodyFiles,
    disk::{Disk, StoreFile},
    error::AuditError,
    state::LogHead,
};

/// Blocks that a tail goes on for: fewer files are made, and at most this much is kept twice.
const TAIL_BLOCKS: u64 = 16;

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

    /// The records before `to` were pruned, and their bodies with them.
    pub(crate) fn forget_bodies(&mut self, to: u64) {
        self.bodies.forget_before(&mut self.head.bodies, to);
    }

    /// Whether so many records are only added to files that are there: none of them closes a block (that is compressed,
    /// and may begin files), and the file for their bodies, if they have any, is open.
    pub(crate) fn only_adds(&self, records: usize, bodies: bool) -> bool {
        let closes = self.block.hashes.len() + records >= BLOCK_RECORDS as usize;
        !closes && (!bodies || self.bodies.is_open_for(&self.head.bodies, self.head.size()))
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
        self.block = block.following(next, self.head.chain);
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
}

fn create_tail(disk: &Disk, layout: &LogLayout, first: u64, chain_in: Hash) -> io::Result<(Arc<StoreFile>, u64)> {
    let file = disk.create(&layout.tail(first))?;
    file.write_all_at(&TailHeader { first_index: first, chain_in }.encode(), 0)?;
    Ok((file, TAIL_HEADER_LEN as u64))
}
