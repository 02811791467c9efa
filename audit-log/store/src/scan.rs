//! Walks the records of one log that a query may want, block by block, on a live log or a copy.
//!
//! Invariants: whole records in order, at most one block in memory beside what was found; a
//! segment that is gone without having been pruned is an error, never silence; an index only
//! narrows which blocks are read, each record is compared with the query all the same.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use provost_audit_core::{
    BLOCK_RECORDS, BlockSet, LogId, SEGMENT_BLOCKS, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentIndex, block_first,
};
use provost_audit_verify::{LogLayout, LogReader, ReadFault, SegmentFile, after};

use crate::{
    indexer::read_index,
    query::{Found, Query, QueryError, decode},
};

/// What a query read, and what it did not have to.
#[derive(Debug, Default)]
pub struct QueryStats {
    /// Blocks of full segments that were read.
    pub blocks_read: AtomicU64,
    /// Blocks of full segments that were passed over.
    pub blocks_passed: AtomicU64,
    /// Full segments without a usable index.
    pub without_index: AtomicU64,
}

/// The wanted records of one log, oldest first.
pub(crate) struct LogScan {
    layout: LogLayout,
    log: LogId,
    query: Arc<Query>,
    stats: Arc<QueryStats>,
    /// Records before this one are not wanted.
    from: u64,
    segments: VecDeque<u64>,
    open: Option<Open>,
    rest: Option<LogReader>,
    ready: VecDeque<Found>,
    ended: bool,
}

/// Where the full segments of a log begin, and where the rest does.
pub(crate) struct Parts {
    pub segments: Vec<u64>,
    pub rest: u64,
}

impl Parts {
    /// Looks at the folder. The last segment belongs to the rest, because it may be growing, until
    /// it has an index.
    pub(crate) fn of(layout: &LogLayout) -> Result<Self, ReadFault> {
        let fault = |what: String, index| {
            let file = layout.segment(index);
            ReadFault { file, offset: 0, index, what, missing: true }
        };
        let mut segments = layout.list_segments().map_err(|e| fault(e.to_string(), 0))?;
        let pruned = layout.list_pruned().map_err(|e| fault(e.to_string(), 0))?;
        let kept = pruned.last().map_or(0, |last| last + SEGMENT_LEAVES);
        // Between the prune and the removal of its files a segment has both.
        segments.retain(|first| *first >= kept);
        for (n, first) in segments.iter().enumerate() {
            let expected = kept + n as u64 * SEGMENT_LEAVES;
            if *first != expected {
                return Err(fault("the segment is missing".to_owned(), expected));
            }
        }
        let rest = match segments.last().copied() {
            Some(last) if layout.index(last).exists() => last + SEGMENT_LEAVES,
            Some(last) => {
                segments.pop();
                last
            }
            None => kept,
        };
        Ok(Self { segments, rest })
    }
}

impl LogScan {
    /// All of a log, from record `from` on.
    pub(crate) fn new(
        layout: LogLayout,
        log: LogId,
        query: Arc<Query>,
        from: u64,
        stats: Arc<QueryStats>,
    ) -> Result<Self, ReadFault> {
        let parts = Parts::of(&layout)?;
        let segments = parts.segments.into_iter().filter(|first| first + SEGMENT_LEAVES > from).collect();
        let rest = Some(Self::rest(&layout, parts.rest.max(from - from % SEGMENT_LEAVES), &query, from));
        Ok(Self { layout, log, query, stats, from, segments, open: None, rest, ready: VecDeque::new(), ended: false })
    }

    /// Only one full segment.
    pub(crate) fn of_segment(
        layout: LogLayout,
        log: LogId,
        query: Arc<Query>,
        first: u64,
        stats: Arc<QueryStats>,
    ) -> Self {
        let segments = VecDeque::from([first]);
        Self {
            layout,
            log,
            query,
            stats,
            from: 0,
            segments,
            open: None,
            rest: None,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// Only what is behind the full segments.
    pub(crate) fn of_rest(
        layout: LogLayout,
        log: LogId,
        query: Arc<Query>,
        first: u64,
        stats: Arc<QueryStats>,
    ) -> Self {
        let rest = Some(Self::rest(&layout, first, &query, 0));
        let segments = VecDeque::new();
        Self { layout, log, query, stats, from: 0, segments, open: None, rest, ready: VecDeque::new(), ended: false }
    }

    fn rest(layout: &LogLayout, first: u64, query: &Arc<Query>, from: u64) -> LogReader {
        let query = query.clone();
        LogReader::from_segment(layout.clone(), first).with_filter(Box::new(move |header| {
            header.first_index + BLOCK_RECORDS > from && query.may_span(header.min_time_ns, header.max_time_ns)
        }))
    }

    fn fill(&mut self) -> Result<bool, QueryError> {
        if self.open.is_none()
            && let Some(first) = self.segments.pop_front()
        {
            self.open = self.open(first)?;
            return Ok(true);
        }
        if let Some(mut open) = self.open.take() {
            if self.next_block(&mut open)? {
                self.open = Some(open);
            }
            return Ok(true);
        }
        let Some(reader) = &mut self.rest else { return Ok(false) };
        let Some(chunk) = reader.next()? else { return Ok(false) };
        for (index, leaf) in chunk.iter().filter(|(index, _)| *index >= self.from) {
            let found = decode(&self.log, index, leaf)?;
            if self.query.wants(&found.record) {
                self.ready.push_back(found);
            }
        }
        Ok(true)
    }

    fn open(&self, first: u64) -> Result<Option<Open>, QueryError> {
        let Some(file) = SegmentFile::open(&self.layout, first)? else {
            // Pruned since the folder was looked at; anything else has no business to be gone.
            if self.layout.pruned(first).exists() {
                return Ok(None);
            }
            let what = "the segment is missing".to_owned();
            let file = self.layout.segment(first);
            return Err(ReadFault { file, offset: 0, index: first, what, missing: true }.into());
        };
        let index = match self.query.no_index {
            true => None,
            false => read_index(&self.layout, &file, first),
        };
        if index.is_none() {
            self.stats.without_index.fetch_add(1, Ordering::Relaxed);
        }
        let wanted = match &index {
            Some(index) => self.query.keys().fold(BlockSet::ALL, |set, key| set.and(index.blocks(key))),
            None => BlockSet::ALL,
        };
        Ok(Some(Open { file, first, index, wanted, blocks: 0..SEGMENT_BLOCKS, offset: SEGMENT_HEADER_LEN as u64 }))
    }

    /// Reads the next wanted block of the open segment; false at its end.
    fn next_block(&mut self, open: &mut Open) -> Result<bool, QueryError> {
        while let Some(n) = open.blocks.next().and_then(|n| u8::try_from(n).ok()) {
            let mut wanted = open.wanted.contains(n) && block_first(open.first, n) + BLOCK_RECORDS > self.from;
            if let Some(index) = &open.index {
                let Some(place) = index.place(n) else { return Err(open.misleading(n)) };
                open.offset = place.offset;
                wanted &= self.query.may_span(place.min_time_ns, place.max_time_ns);
            }
            if !wanted && open.index.is_some() {
                self.stats.blocks_passed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let header = match (open.file.header(n, open.offset), &open.index) {
                (Ok(Some(header)), _) => header,
                (_, Some(_)) => return Err(open.misleading(n)),
                (Err(fault), None) => return Err(fault.into()),
                (Ok(None), None) => {
                    let what = "the segment ends before its last block";
                    return Err(open.file.fault(n, open.offset, &what, true).into());
                }
            };
            let offset = open.offset;
            open.offset = after(offset, &header);
            if !wanted || !self.query.may_span(header.min_time_ns, header.max_time_ns) {
                self.stats.blocks_passed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.stats.blocks_read.fetch_add(1, Ordering::Relaxed);
            for (index, leaf) in open.file.block(n, offset, &header)?.filter(|(index, _)| *index >= self.from) {
                let found = decode(&self.log, index, leaf)?;
                if self.query.wants(&found.record) {
                    self.ready.push_back(found);
                }
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// A segment that is being read.
struct Open {
    file: SegmentFile,
    first: u64,
    index: Option<SegmentIndex>,
    wanted: BlockSet,
    blocks: std::ops::Range<u64>,
    /// Without an index: where the next block begins.
    offset: u64,
}

impl Open {
    /// The index leads elsewhere, so what it passed over may have been wanted: that is said, not
    /// worked around.
    fn misleading(&self, n: u8) -> QueryError {
        let what = "the segment's index does not fit it; remove the .idx file, or query with --no-index";
        self.file.fault(n, 0, &what, false).into()
    }
}

impl Iterator for LogScan {
    type Item = Result<Found, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Some(Ok(found));
            }
            if self.ended {
                return None;
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            }
        }
    }
}
