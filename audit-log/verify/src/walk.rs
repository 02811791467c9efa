//! Walks a log's files in order and names their parts, without reading the bodies of blocks.
//!
//! Works on a log that is being written: bytes that a writer has not finished are the end, and
//! when the tail moved on between two reads the segments are looked at again.
//! Invariants: each part is named once and in order; nothing read is trusted beyond its bounds;
//! whether hashes hold is the caller's business.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use provost_audit_core::{
    BLOCK_HEADER_LEN, BLOCK_RECORDS, BlockHeader, SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SEGMENT_LEAVES,
    SegmentFooter, SegmentHeader,
};

use crate::{
    layout::LogLayout,
    regular,
    segment_file::{BlockPlace, SegmentFile, read_at},
    tail::{OpenTail, Opened, TailRun},
};

/// How often the segments are looked at again when the tail has moved on meanwhile.
const MAX_RESCANS: u32 = 8;

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

/// What stands next in a log.
pub(crate) enum Part {
    /// A segment begins.
    Segment(Arc<SegmentFile>, SegmentHeader),
    /// A block; its body is not read yet.
    Block(BlockPlace),
    /// The footer of a full segment, and its offset.
    Footer(Arc<SegmentFile>, u64, SegmentFooter),
    /// Up to 256 records of the tail; the first part of a tail may hold none.
    Tail(TailRun),
}

enum Stage {
    /// Before the segment that should begin at `next`.
    Segments,
    /// Within a segment.
    Blocks(OpenSegment),
    Tail(OpenTail),
    /// Something stands behind the part that was named last.
    Wrong(ReadFault),
    Done,
}

struct OpenSegment {
    file: Arc<SegmentFile>,
    /// Offset of the next part.
    at: u64,
    /// Length of the file when it was last asked for.
    len: u64,
}

/// Walks one log.
pub(crate) struct Walk {
    layout: LogLayout,
    stage: Stage,
    /// Index of the next leaf.
    next: u64,
    rescans: u32,
    /// Where the next part would stand.
    end: (PathBuf, u64),
}

impl Walk {
    /// From leaf `first`, the first of its segment.
    pub(crate) fn new(layout: LogLayout, first: u64) -> Self {
        let end = (layout.dir.clone(), 0);
        Self { layout, stage: Stage::Segments, next: first, rescans: 0, end }
    }

    /// Index of the leaf after the last part.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// File and offset at which the next part would stand.
    pub(crate) fn end(&self) -> &(PathBuf, u64) {
        &self.end
    }

    /// The next part, or `None` at the end of what is complete.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, ReadFault> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Done => return Ok(None),
                Stage::Wrong(fault) => return Err(fault),
                Stage::Segments => {
                    if let Some(part) = self.open_segment()? {
                        return Ok(Some(part));
                    }
                }
                Stage::Blocks(segment) => {
                    if let Some(part) = self.next_block(segment)? {
                        return Ok(Some(part));
                    }
                }
                Stage::Tail(mut tail) => {
                    let run = tail.read_run(self.next)?;
                    self.end.1 = tail.at();
                    self.next += run.leaves.len() as u64;
                    if run.leaves.is_empty() && run.header.is_none() {
                        return Ok(None);
                    }
                    if tail.goes_on(&run) {
                        self.stage = Stage::Tail(tail);
                    }
                    return Ok(Some(Part::Tail(run)));
                }
            }
        }
    }

    fn fault(&self, file: &Path, offset: u64, what: impl ToString, missing: bool) -> ReadFault {
        ReadFault { file: file.to_owned(), offset, index: self.next, what: what.to_string(), missing }
    }

    fn open_segment(&mut self) -> Result<Option<Part>, ReadFault> {
        let first = self.next - self.next % SEGMENT_LEAVES;
        let path = self.layout.segment(first);
        let records = match regular::open(&path) {
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
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        if read_at(&records, &mut bytes, 0).map_err(|e| self.fault(&path, 0, e, false))? < bytes.len() {
            // A segment is created before its first block is written: an empty one is the end.
            return self.open_tail();
        }
        let header = SegmentHeader::decode(&bytes).map_err(|e| self.fault(&path, 0, e, false))?;
        if header.first_index != first {
            return Err(self.fault(&path, 0, "the segment's header names another first index", false));
        }
        let hashes = regular::open(&self.layout.leaf_hashes(first)).ok();
        let file = Arc::new(SegmentFile { path, first, records, hashes });
        let mut segment = OpenSegment { file, at: SEGMENT_HEADER_LEN as u64, len: 0 };
        // After another look at the segments: pass over the blocks that were already named.
        let mut passed = first;
        while passed < self.next {
            let at = segment.at;
            let header = self.block_header(&mut segment)?;
            let header =
                header.ok_or_else(|| self.fault(&segment.file.path, at, "the segment became shorter", true))?;
            segment.at += BLOCK_HEADER_LEN as u64 + u64::from(header.stored_len);
            passed += BLOCK_RECORDS;
        }
        self.end = (segment.file.path.clone(), segment.at);
        let part = Part::Segment(segment.file.clone(), header);
        let begins = self.next == first;
        self.stage = Stage::Blocks(segment);
        Ok(begins.then_some(part))
    }

    /// The header at the segment's place; `None` where the file ends within the block.
    fn block_header(&self, segment: &mut OpenSegment) -> Result<Option<BlockHeader>, ReadFault> {
        let wrong = |what: String| self.fault(&segment.file.path, segment.at, what, false);
        let mut bytes = [0; BLOCK_HEADER_LEN];
        let got = read_at(&segment.file.records, &mut bytes, segment.at).map_err(|e| wrong(e.to_string()))?;
        if got < bytes.len() {
            return Ok(None);
        }
        let header = BlockHeader::decode(&bytes).map_err(|e| wrong(e.to_string()))?;
        let end = segment.at + BLOCK_HEADER_LEN as u64 + u64::from(header.stored_len);
        if end > segment.len {
            segment.len = segment.file.records.metadata().map_err(|e| wrong(e.to_string()))?.len();
        }
        Ok((end <= segment.len).then_some(header))
    }

    fn next_block(&mut self, mut segment: OpenSegment) -> Result<Option<Part>, ReadFault> {
        let offset = segment.at;
        if self.next == segment.file.first + SEGMENT_LEAVES {
            return self.footer(&segment);
        }
        let Some(header) = self.block_header(&mut segment)? else { return self.open_tail() };
        if header.first_index != self.next {
            let text = format!("block {} stands where {} belongs", header.first_index, self.next);
            return Err(self.fault(&segment.file.path, offset, text, false));
        }
        segment.at += BLOCK_HEADER_LEN as u64 + u64::from(header.stored_len);
        self.end.1 = segment.at;
        self.next += BLOCK_RECORDS;
        let part = Part::Block(BlockPlace { segment: segment.file.clone(), offset, header });
        self.stage = Stage::Blocks(segment);
        Ok(Some(part))
    }

    /// The footer follows the last block in the same write: absent only when that write is not
    /// finished, or was cut.
    fn footer(&mut self, segment: &OpenSegment) -> Result<Option<Part>, ReadFault> {
        let first = segment.file.first;
        // The segment is the failing part, and its first leaf the place.
        let wrong = |what: String| {
            let fault = self.fault(&segment.file.path, segment.at, what, false);
            ReadFault { index: first, ..fault }
        };
        let mut bytes = [0; SEGMENT_FOOTER_LEN];
        let got = read_at(&segment.file.records, &mut bytes, segment.at).map_err(|e| wrong(e.to_string()))?;
        if got < bytes.len() {
            if self.layout.segment(first + SEGMENT_LEAVES).exists() {
                return Err(wrong("the footer is missing".to_owned()));
            }
            self.stage = Stage::Segments;
            return Ok(None);
        }
        let footer = SegmentFooter::decode(&bytes).map_err(|e| wrong(e.to_string()))?;
        if footer.first_index != first {
            return Err(wrong("the footer names another segment".to_owned()));
        }
        let end = segment.at + SEGMENT_FOOTER_LEN as u64;
        // Who looks for the footer at the file's end would find another one.
        let len = segment.file.records.metadata().map_err(|e| wrong(e.to_string()))?.len();
        let behind = (len > end).then(|| {
            let fault = wrong(format!("{} bytes stand behind the segment's footer", len - end));
            ReadFault { offset: end, ..fault }
        });
        self.end.1 = end;
        self.stage = behind.map_or(Stage::Segments, Stage::Wrong);
        Ok(Some(Part::Footer(segment.file.clone(), segment.at, footer)))
    }

    fn open_tail(&mut self) -> Result<Option<Part>, ReadFault> {
        let dir = self.layout.dir.clone();
        let tails = self.layout.list_tails().map_err(|e| self.fault(&dir, 0, e, true))?;
        let Some(first) = tails.iter().rev().find(|first| **first <= self.next).copied() else {
            // No tail yet, or it moved on after the segments were read.
            if let Some(beyond) = tails.first() {
                self.look_again(*beyond)?;
            }
            return Ok(None);
        };
        let path = self.layout.tail(first);
        match OpenTail::open(&path, first, self.next)? {
            Opened::At(tail) => {
                self.end = (path, tail.at());
                self.stage = Stage::Tail(tail);
            }
            Opened::Short(end) => self.end = (path, end),
            Opened::Gone => self.look_again(first)?,
        }
        Ok(None)
    }

    fn look_again(&mut self, beyond: u64) -> Result<(), ReadFault> {
        self.rescans += 1;
        if self.rescans > MAX_RESCANS {
            let text = format!("records {} to {beyond} are in no segment and no tail", self.next);
            return Err(self.fault(&self.layout.tail(beyond), 0, text, true));
        }
        self.stage = Stage::Segments;
        Ok(())
    }
}
