//! Reads a log's segments and tail in order, one block at a time.
//!
//! Works on a log that is being written: bytes that a writer has not finished are the end, and
//! when the tail moved on between two reads the segments are looked at again.
//! Invariants: at most one block (16 MiB) and its stored form are in memory; nothing read is
//! trusted beyond its bounds; whether hashes hold is the caller's business.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use provost_audit_core::{
    BLOCK_HEADER_LEN, BLOCK_RECORDS, BlockError, BlockHeader, Hash, Leaves, MAX_LEAF, SEGMENT_FOOTER_LEN,
    SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentFooter, SegmentHeader, TAIL_HEADER_LEN, TAIL_PREFIX_LEN, TailHeader,
    decode_body,
};

use crate::layout::LogLayout;

/// How often a reader looks at the segments again when the tail has moved on under it.
const MAX_RESCANS: u32 = 8;
/// Read-ahead of the file readers, bytes.
const READ_AHEAD: usize = 256 * 1024;

/// A part of the log could not be read as what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, byte {offset}: {what}", file.display())]
pub struct ReadFault {
    /// The file.
    pub file: PathBuf,
    /// Offset of the part in it.
    pub offset: u64,
    /// Index of the first leaf that cannot be read.
    pub index: u64,
    /// What is wrong.
    pub what: String,
    /// Whether a file is absent or ends early, rather than holding other bytes.
    pub missing: bool,
}

/// A run of records: one block, or up to 256 records of the tail.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The file.
    pub file: PathBuf,
    /// Index of the first leaf.
    pub first_index: u64,
    /// The block's header; `None` for records of the tail.
    pub header: Option<BlockHeader>,
    /// The segment header, with the segment's first block.
    pub segment: Option<SegmentHeader>,
    /// The segment footer, with the segment's last block.
    pub footer: Option<SegmentFooter>,
    /// The tail's header, with the first records of the tail.
    pub tail: Option<TailHeader>,
    /// Uncompressed bytes that hold the leaves.
    pub raw: Vec<u8>,
    /// Each leaf within `raw`.
    pub leaves: Vec<Range<usize>>,
    /// Leaf hashes as stored beside the records; fewer than leaves when the file is short.
    pub hashes: Vec<Hash>,
    /// Where each record (tail) or the whole block stands in the file.
    offsets: Vec<u64>,
}

impl Chunk {
    /// Offset in the file of the part that holds leaf number `n` of this chunk.
    pub fn offset(&self, n: usize) -> u64 {
        self.offsets.get(n).or(self.offsets.first()).copied().unwrap_or_default()
    }

    /// The leaves with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let leaf = |range: &Range<usize>| self.raw.get(range.clone()).unwrap_or_default();
        (self.first_index..).zip(self.leaves.iter().map(leaf))
    }
}

/// Says whether a block is wanted; a refused one is passed over without being read.
pub type BlockFilter = Box<dyn FnMut(&BlockHeader) -> bool + Send>;

enum Stage {
    /// Before the segment that should begin at `next`.
    Segments,
    /// Within a segment.
    Blocks(OpenSegment),
    /// Within the tail, whose next record begins at this offset.
    Tail(BufReader<File>, u64),
    Done,
}

struct OpenSegment {
    first: u64,
    path: PathBuf,
    file: BufReader<File>,
    hashes: Option<BufReader<File>>,
    header: Option<SegmentHeader>,
    at: u64,
}

/// Reads one log.
pub struct LogReader {
    layout: LogLayout,
    stage: Stage,
    chunk: Chunk,
    stored: Vec<u8>,
    /// Index of the next leaf.
    next: u64,
    rescans: u32,
    filter: Option<BlockFilter>,
    /// The header of the tail that was opened, until it is given out.
    tail: Option<TailHeader>,
}

impl LogReader {
    /// From the first leaf of `layout`'s log.
    pub fn new(layout: LogLayout) -> Self {
        Self::from_segment(layout, 0)
    }

    /// From leaf `first`, the first of its segment.
    pub fn from_segment(layout: LogLayout, first: u64) -> Self {
        Self {
            layout,
            stage: Stage::Segments,
            chunk: Chunk::default(),
            stored: Vec::new(),
            next: first,
            rescans: 0,
            filter: None,
            tail: None,
        }
    }

    /// Index of the leaf after the last one read or passed over.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Passes over blocks that `filter` refuses.
    pub fn with_filter(mut self, filter: BlockFilter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// The next run of records, or `None` at the end of what is complete.
    #[allow(clippy::should_implement_trait, reason = "it lends its buffer")]
    pub fn next(&mut self) -> Result<Option<&Chunk>, ReadFault> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Done => return Ok(None),
                Stage::Segments => self.stage = self.open_segment()?,
                Stage::Blocks(mut segment) => match self.read_block(&mut segment)? {
                    Step::Chunk => {
                        self.stage = Stage::Blocks(segment);
                        return Ok(Some(&self.chunk));
                    }
                    Step::Passed => self.stage = Stage::Blocks(segment),
                    Step::SegmentEnd => self.stage = Stage::Segments,
                    Step::LogEnd => self.stage = self.open_tail()?,
                },
                Stage::Tail(mut file, mut at) => {
                    self.read_tail(&mut file, &mut at)?;
                    if self.chunk.leaves.is_empty() {
                        return Ok(None);
                    }
                    self.stage = Stage::Tail(file, at);
                    return Ok(Some(&self.chunk));
                }
            }
        }
    }

    fn fault(&self, file: &Path, offset: u64, what: impl ToString, missing: bool) -> ReadFault {
        ReadFault { file: file.to_owned(), offset, index: self.next, what: what.to_string(), missing }
    }

    fn open_segment(&mut self) -> Result<Stage, ReadFault> {
        let first = self.next - self.next % SEGMENT_LEAVES;
        let path = self.layout.segment(first);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let later = self.layout.list_segments().unwrap_or_default();
                if later.last().is_some_and(|last| *last > first) {
                    return Err(self.fault(&path, 0, "the segment is missing", true));
                }
                return self.open_tail();
            }
            Err(e) => return Err(self.fault(&path, 0, e, true)),
        };
        let mut file = BufReader::with_capacity(READ_AHEAD, file);
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        if read_full(&mut file, &mut bytes).map_err(|e| self.fault(&path, 0, e, false))? < bytes.len() {
            // A segment is created before its first block is written: an empty one is the end.
            return self.open_tail();
        }
        let header = SegmentHeader::decode(&bytes).map_err(|e| self.fault(&path, 0, e, false))?;
        if header.first_index != first {
            return Err(self.fault(&path, 8, "the header names another first index", false));
        }
        let mut at = SEGMENT_HEADER_LEN as u64;
        let hashes = File::open(self.layout.leaf_hashes(first)).ok();
        let mut segment = OpenSegment {
            first,
            path,
            file,
            hashes: hashes.map(|f| BufReader::with_capacity(READ_AHEAD, f)),
            header: Some(header),
            at,
        };
        // After a rescan: pass over the blocks that were already given out.
        let mut passed = first;
        while passed < self.next {
            let header = self
                .block_header(&mut segment)?
                .ok_or_else(|| self.fault(&segment.path, at, "the segment became shorter", true))?;
            segment.pass(&header).map_err(|e| self.fault(&segment.path, at, e, true))?;
            passed += BLOCK_RECORDS;
            at = segment.at;
        }
        Ok(Stage::Blocks(segment))
    }

    /// The header at the reader's place; `None` where the file ends within it.
    fn block_header(&self, segment: &mut OpenSegment) -> Result<Option<BlockHeader>, ReadFault> {
        let mut bytes = [0; BLOCK_HEADER_LEN];
        let got =
            read_full(&mut segment.file, &mut bytes).map_err(|e| self.fault(&segment.path, segment.at, e, false))?;
        if got < bytes.len() {
            return Ok(None);
        }
        let wrong = |e: BlockError| self.fault(&segment.path, segment.at, e, false);
        let header = BlockHeader::decode(&bytes).map_err(wrong)?;
        Ok(Some(header))
    }

    fn read_block(&mut self, segment: &mut OpenSegment) -> Result<Step, ReadFault> {
        let offset = segment.at;
        if self.next == segment.first + SEGMENT_LEAVES {
            // The footer went out with the last block.
            return Ok(Step::SegmentEnd);
        }
        let Some(header) = self.block_header(segment)? else { return Ok(Step::LogEnd) };
        if header.first_index != self.next {
            let text = format!("block {} stands where {} belongs", header.first_index, self.next);
            return Err(self.fault(&segment.path, offset, text, false));
        }
        let wanted = self.filter.as_mut().is_none_or(|filter| filter(&header));
        let last = self.next + BLOCK_RECORDS == segment.first + SEGMENT_LEAVES;
        if !wanted {
            segment.pass(&header).map_err(|e| self.fault(&segment.path, offset, e, true))?;
            self.next += BLOCK_RECORDS;
            return Ok(Step::Passed);
        }
        self.stored.resize(header.stored_len as usize, 0);
        let got =
            read_full(&mut segment.file, &mut self.stored).map_err(|e| self.fault(&segment.path, offset, e, false))?;
        if got < self.stored.len() {
            return Ok(Step::LogEnd);
        }
        decode_body(&header, &self.stored, &mut self.chunk.raw)
            .map_err(|e| self.fault(&segment.path, offset, e, false))?;
        let leaves: Result<Vec<_>, _> = Leaves::new(&self.chunk.raw).collect();
        self.chunk.leaves = leaves.map_err(|e| self.fault(&segment.path, offset, e, false))?;
        if self.chunk.leaves.len() as u64 != BLOCK_RECORDS {
            let text = format!("the block holds {} records", self.chunk.leaves.len());
            return Err(self.fault(&segment.path, offset, text, false));
        }
        segment.at += BLOCK_HEADER_LEN as u64 + u64::from(header.stored_len);
        self.chunk.hashes = segment.take_hashes();
        self.chunk.file.clone_from(&segment.path);
        self.chunk.first_index = self.next;
        self.chunk.offsets = vec![offset];
        self.chunk.segment = segment.header.take();
        self.chunk.header = Some(header);
        self.chunk.footer = if last { self.footer(segment)? } else { None };
        self.next += BLOCK_RECORDS;
        Ok(Step::Chunk)
    }

    /// The footer follows the last block in the same write: absent only when that write is not
    /// finished, or was cut.
    fn footer(&self, segment: &mut OpenSegment) -> Result<Option<SegmentFooter>, ReadFault> {
        let mut bytes = [0; SEGMENT_FOOTER_LEN];
        let wrong = |what: String| self.fault(&segment.path, segment.at, what, false);
        let got = read_full(&mut segment.file, &mut bytes).map_err(|e| wrong(e.to_string()))?;
        if got < bytes.len() {
            let later = self.layout.segment(segment.first + SEGMENT_LEAVES).exists();
            return if later { Err(wrong("the footer is missing".to_owned())) } else { Ok(None) };
        }
        let footer = SegmentFooter::decode(&bytes).map_err(|e| wrong(e.to_string()))?;
        if footer.first_index != segment.first {
            return Err(wrong("the footer names another segment".to_owned()));
        }
        Ok(Some(footer))
    }

    fn open_tail(&mut self) -> Result<Stage, ReadFault> {
        let dir = self.layout.dir.clone();
        let tails = self.layout.list_tails().map_err(|e| self.fault(&dir, 0, e, true))?;
        let Some(first) = tails.iter().rev().find(|first| **first <= self.next).copied() else {
            // No tail yet, or it moved on after the segments were read.
            if let Some(beyond) = tails.first() {
                self.rescan(&tails, *beyond)?;
                return Ok(Stage::Segments);
            }
            return Ok(Stage::Done);
        };
        let path = self.layout.tail(first);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.rescan(&tails, first)?;
                return Ok(Stage::Segments);
            }
            Err(e) => return Err(self.fault(&path, 0, e, true)),
        };
        let mut file = BufReader::with_capacity(READ_AHEAD, file);
        let mut bytes = [0; TAIL_HEADER_LEN];
        if read_full(&mut file, &mut bytes).map_err(|e| self.fault(&path, 0, e, false))? < bytes.len() {
            return Ok(Stage::Done);
        }
        let header = TailHeader::decode(&bytes).map_err(|e| self.fault(&path, 0, e, false))?;
        if header.first_index != first {
            return Err(self.fault(&path, 8, "the header names another first index", false));
        }
        self.chunk.file = path.clone();
        self.tail = Some(header);
        let mut at = TAIL_HEADER_LEN as u64;
        for _ in first..self.next {
            match tail_frame(&mut file, None) {
                Ok(Some((len, _))) => at += (TAIL_PREFIX_LEN + len) as u64,
                Ok(None) => return Ok(Stage::Done),
                Err(e) => return Err(self.fault(&path, at, e, false)),
            }
        }
        Ok(Stage::Tail(file, at))
    }

    fn rescan(&mut self, tails: &[u64], at: u64) -> Result<(), ReadFault> {
        self.rescans += 1;
        if self.rescans > MAX_RESCANS {
            let path = self.layout.tail(*tails.first().unwrap_or(&at));
            let text = format!("records {} to {at} are in no segment and no tail", self.next);
            return Err(self.fault(&path, 0, text, true));
        }
        Ok(())
    }

    fn read_tail(&mut self, file: &mut BufReader<File>, at: &mut u64) -> Result<(), ReadFault> {
        let path = self.chunk.file.clone();
        self.chunk = Chunk { file: path, first_index: self.next, tail: self.tail.take(), ..Chunk::default() };
        while (self.chunk.leaves.len() as u64) < BLOCK_RECORDS {
            let start = self.chunk.raw.len();
            match tail_frame(file, Some(&mut self.chunk.raw)) {
                Ok(Some((len, hash))) => {
                    self.chunk.leaves.push(start..start + len);
                    self.chunk.hashes.push(hash);
                    self.chunk.offsets.push(*at);
                    *at += (TAIL_PREFIX_LEN + len) as u64;
                    self.next += 1;
                }
                Ok(None) => break,
                Err(e) => return Err(self.fault(&self.chunk.file, *at, e, false)),
            }
        }
        Ok(())
    }
}

enum Step {
    Chunk,
    Passed,
    SegmentEnd,
    LogEnd,
}

impl OpenSegment {
    fn pass(&mut self, header: &BlockHeader) -> io::Result<()> {
        let len = u64::from(header.stored_len);
        self.file.seek_relative(i64::from(header.stored_len))?;
        self.at += BLOCK_HEADER_LEN as u64 + len;
        if let Some(hashes) = &mut self.hashes {
            hashes.seek_relative(BLOCK_RECORDS as i64 * 32)?;
        }
        // Seeking passes the end of a file without a word.
        if self.at > self.file.get_ref().metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn take_hashes(&mut self) -> Vec<Hash> {
        let Some(file) = &mut self.hashes else { return Vec::new() };
        let mut bytes = [0; BLOCK_RECORDS as usize * 32];
        let got = read_full(file, &mut bytes).unwrap_or_default();
        let (hashes, _) = bytes[..got].as_chunks::<32>();
        hashes.iter().map(|h| Hash(*h)).collect()
    }
}

/// One record of the tail: its length and stored hash; its bytes are appended to `into`.
/// `None` where the file ends within it: a write that was not finished.
fn tail_frame(file: &mut BufReader<File>, into: Option<&mut Vec<u8>>) -> io::Result<Option<(usize, Hash)>> {
    let mut prefix = [0; TAIL_PREFIX_LEN];
    if read_full(file, &mut prefix)? < prefix.len() {
        return Ok(None);
    }
    let ([a, b, c, d, ..], hash) = (prefix, prefix[4..].first_chunk::<32>());
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    let hash = hash.map(|h| Hash(*h)).unwrap_or_default();
    if len > MAX_LEAF {
        return Err(io::Error::other(BlockError::Bounds("record's length").to_string()));
    }
    match into {
        Some(raw) => {
            let start = raw.len();
            raw.resize(start + len, 0);
            if read_full(file, &mut raw[start..])? < len {
                raw.truncate(start);
                return Ok(None);
            }
        }
        None => {
            if io::copy(&mut file.by_ref().take(len as u64), &mut io::sink())? < len as u64 {
                return Ok(None);
            }
        }
    }
    Ok(Some((len, hash)))
}

/// Reads until `into` is full or the file ends; gives the number of bytes read.
fn read_full(file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// The footer of a full segment, read from its end; of a pruned one, from what stays of it.
pub(crate) fn segment_footer(layout: &LogLayout, first: u64) -> Result<SegmentFooter, ReadFault> {
    let path = layout.segment(first);
    let fault = |what: String, missing| ReadFault { file: path.clone(), offset: 0, index: first, what, missing };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(_) if layout.pruned(first).exists() => return Ok(crate::read_pruned(layout, first)?.footer),
        Err(e) => return Err(fault(e.to_string(), true)),
    };
    let mut bytes = [0; SEGMENT_FOOTER_LEN];
    file.seek(SeekFrom::End(-(SEGMENT_FOOTER_LEN as i64)))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| fault(e.to_string(), true))?;
    let footer = SegmentFooter::decode(&bytes).map_err(|e| fault(e.to_string(), false))?;
    if footer.first_index != first {
        return Err(fault("the footer names another segment".to_owned(), false));
    }
    Ok(footer)
}
