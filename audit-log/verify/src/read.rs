//! Reads a log's records in order, one block at a time: what queries and recovery go by.
//!
//! Invariants: at most one block (16 MiB) and its stored form are in memory; whether hashes hold
//! is the caller's business.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::PathBuf,
};

use provost_audit_core::{
    BLOCK_RECORDS, BlockHeader, BodyDecoder, Hash, Leaves, SEGMENT_FOOTER_LEN, SEGMENT_LEAVES, SegmentFooter,
    SegmentHeader, TailHeader,
};

use crate::{
    layout::LogLayout,
    regular,
    segment_file::BlockPlace,
    tail::TailRun,
    walk::{Part, ReadFault, Walk},
};

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

    fn set_tail(&mut self, run: TailRun) {
        *self = Self {
            file: run.path,
            first_index: run.first_index,
            tail: run.header,
            raw: run.raw,
            leaves: run.leaves,
            hashes: run.hashes,
            offsets: run.offsets,
            ..Self::default()
        };
    }
}

/// Says whether a block is wanted; a refused one is passed over without being read.
pub type BlockFilter = Box<dyn FnMut(&BlockHeader) -> bool + Send>;

/// Reads one log.
pub struct LogReader {
    walk: Walk,
    chunk: Chunk,
    stored: Vec<u8>,
    decoder: BodyDecoder,
    filter: Option<BlockFilter>,
    /// The header of the segment that was opened, until it is given out.
    segment: Option<SegmentHeader>,
    /// A part that was looked at before its turn.
    ahead: Option<Part>,
}

impl LogReader {
    /// From the first leaf of `layout`'s log.
    pub fn new(layout: LogLayout) -> Self {
        Self::from_segment(layout, 0)
    }

    /// From leaf `first`, the first of its segment.
    pub fn from_segment(layout: LogLayout, first: u64) -> Self {
        Self {
            walk: Walk::new(layout, first),
            chunk: Chunk::default(),
            stored: Vec::new(),
            decoder: BodyDecoder::default(),
            filter: None,
            segment: None,
            ahead: None,
        }
    }

    /// Index of the leaf after the last one read or passed over.
    pub fn position(&self) -> u64 {
        self.walk.position()
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
            let part = match self.ahead.take() {
                Some(part) => Some(part),
                None => self.walk.next()?,
            };
            match part {
                None => return Ok(None),
                Some(Part::Segment(_, header)) => self.segment = Some(header),
                Some(Part::Footer(..)) => {}
                Some(Part::Tail(run)) if run.leaves.is_empty() => {}
                Some(Part::Tail(run)) => {
                    self.chunk.set_tail(run);
                    return Ok(Some(&self.chunk));
                }
                Some(Part::Block(place)) => {
                    let wanted = self.filter.as_mut().is_none_or(|filter| filter(&place.header));
                    if wanted && self.read_block(&place)? {
                        return Ok(Some(&self.chunk));
                    }
                }
            }
        }
    }

    /// False when the file became shorter than the block: then nothing of it is there.
    fn read_block(&mut self, place: &BlockPlace) -> Result<bool, ReadFault> {
        if !place.read_body(&mut self.stored).map_err(|e| place.fault(e))? {
            return Err(ReadFault { missing: true, ..place.fault("the segment became shorter") });
        }
        let chunk = &mut self.chunk;
        self.decoder.decode(&place.header, &self.stored, &mut chunk.raw).map_err(|e| place.fault(e))?;
        chunk.leaves.clear();
        for leaf in Leaves::new(&chunk.raw) {
            chunk.leaves.push(leaf.map_err(|e| place.fault(e))?);
        }
        if chunk.leaves.len() as u64 != BLOCK_RECORDS {
            return Err(place.fault(format!("the block holds {} records", chunk.leaves.len())));
        }
        chunk.hashes = place.read_hashes();
        chunk.file.clone_from(&place.segment.path);
        chunk.first_index = place.header.first_index;
        chunk.offsets = vec![place.offset];
        chunk.segment = self.segment.take();
        chunk.header = Some(place.header.clone());
        chunk.tail = None;
        chunk.footer = None;
        if (place.header.first_index + BLOCK_RECORDS).is_multiple_of(SEGMENT_LEAVES) {
            // The footer goes out with the last block.
            match self.walk.next()? {
                Some(Part::Footer(_, _, footer)) => self.chunk.footer = Some(footer),
                other => self.ahead = other,
            }
        }
        Ok(true)
    }
}

/// The footer of a full segment, read from its end; of a pruned one, from what stays of it.
pub(crate) fn segment_footer(layout: &LogLayout, first: u64) -> Result<SegmentFooter, ReadFault> {
    let path = layout.segment(first);
    let fault = |what: String, missing| ReadFault { file: path.clone(), offset: 0, index: first, what, missing };
    let mut file = match regular::open(&path) {
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
