//! Compares a log's indexes with its records: an index that hides a row is found, and placed.
//!
//! An index is a pure function of its segment, so it is made again and compared byte by byte. This
//! reads every indexed segment whole. Nothing that is proven depends on an index; queries do.

use std::{io, path::PathBuf};

use provost_audit_core::{MAX_INDEX_BYTES, Record, SEGMENT_BLOCKS, SEGMENT_HEADER_LEN, SegmentIndex, index_keys};

use crate::{
    ReadFault,
    layout::LogLayout,
    regular,
    segment_read::{SegmentFile, after},
};

/// An index that is not its segment's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFault {
    /// The index.
    pub file: PathBuf,
    /// The first record that a query by this index would miss; `None` when none would.
    pub hidden: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What became of a log's indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexCheck {
    /// Segments whose index is theirs.
    pub good: u64,
    /// Full segments without an index: queries read them whole.
    pub absent: u64,
    /// Indexes that are not their segment's.
    pub faults: Vec<IndexFault>,
}

/// Makes every index of a log again and compares it with the stored one.
pub fn check_indexes(layout: &LogLayout) -> Result<IndexCheck, ReadFault> {
    let mut check = IndexCheck::default();
    let fault =
        |file: PathBuf, e: io::Error| ReadFault { file, offset: 0, index: 0, what: e.to_string(), missing: true };
    for first in layout.list_segments().map_err(|e| fault(layout.segments(), e))? {
        let Some(mut segment) = SegmentFile::open(layout, first)? else { continue };
        if segment.footer()?.is_none() {
            continue;
        }
        let path = layout.index(first);
        let stored = match regular::read(&path, MAX_INDEX_BYTES) {
            Ok(stored) => stored,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                check.absent += 1;
                continue;
            }
            Err(e) => return Err(fault(path, e)),
        };
        let Some((made, root)) = segment.build_index()? else { continue };
        if made == stored {
            check.good += 1;
            continue;
        }
        let usable = SegmentIndex::decode(stored).ok().filter(|index| index.is_of(first, &root));
        let (hidden, what) = match usable {
            // A query passes such an index over: it hides nothing.
            None => (None, "it is damaged, or of another segment"),
            Some(index) => match first_hidden(&mut segment, &index)? {
                Some(record) => (Some(record), "it hides records: it was changed after it was made"),
                None => (None, "it names blocks without the value: it was changed after it was made"),
            },
        };
        check.faults.push(IndexFault { file: path, hidden, what: what.to_owned() });
    }
    Ok(check)
}

/// The first record whose block the index does not name for one of its values, or passes over by
/// its times, or looks for elsewhere.
fn first_hidden(segment: &mut SegmentFile, index: &SegmentIndex) -> Result<Option<u64>, ReadFault> {
    let mut offset = SEGMENT_HEADER_LEN as u64;
    for n in (0..SEGMENT_BLOCKS).filter_map(|n| u8::try_from(n).ok()) {
        let Some(header) = segment.header(n, offset)? else { return Ok(None) };
        let place = index.place(n);
        let whole = place.is_some_and(|p| {
            p.offset == offset && p.min_time_ns <= header.min_time_ns && p.max_time_ns >= header.max_time_ns
        });
        if !whole {
            return Ok(Some(header.first_index));
        }
        for (at, leaf) in segment.block(n, offset, &header)? {
            let Ok(record) = Record::decode(leaf) else { continue };
            if index_keys(&record).any(|key| !index.blocks(key).contains(n)) {
                return Ok(Some(at));
            }
        }
        offset = after(offset, &header);
    }
    Ok(None)
}
