//! The files of a prune: what stays is written first, what goes is removed last.
//!
//! Between the two the machine's state becomes durable, so that a crash leaves one of: everything
//! as it was; what stays beside what goes (the Raft log, or the next start, removes the rest);
//! done. Whatever stands beside a segment under its number goes with it.

use std::{fs, io};

use provost_audit_core::{PrunedSegment, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentHeader};
use provost_audit_verify::{LogLayout, SegmentFile};

use crate::persist::{replace, sync_dir};

/// The prune of one log's files.
#[derive(Clone, Debug)]
pub(crate) struct PruneFiles {
    pub layout: LogLayout,
    /// The first record that is kept.
    pub to: u64,
    /// Index of the record that says so.
    pub record: u64,
}

impl PruneFiles {
    /// Writes what stays of each segment, durably.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let mut written = false;
        for first in self.segments()? {
            let path = self.layout.pruned(first);
            if path.exists() {
                continue;
            }
            let stays = self.what_stays(first)?;
            replace(&path, &stays.encode())?;
            written = true;
        }
        if written { sync_dir(&self.layout.segments()) } else { Ok(()) }
    }

    /// Removes what goes.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let dir = self.layout.segments();
        let mut removed = false;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((number, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let goes = number.len() == 20 && number.parse::<u64>().is_ok_and(|first| first < self.to);
            if goes && kind != "pruned" {
                fs::remove_file(entry.path())?;
                removed = true;
            }
        }
        if removed { sync_dir(&dir) } else { Ok(()) }
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut all = self.layout.list_segments()?;
        all.retain(|first| *first < self.to);
        Ok(all)
    }

    fn what_stays(&self, first: u64) -> io::Result<PrunedSegment> {
        let path = self.layout.segment(first);
        let wrong = |why: &str| io::Error::other(format!("{}: {why}", path.display()));
        let segment = SegmentFile::open(&self.layout, first).map_err(io::Error::other)?;
        let footer = segment.ok_or_else(|| wrong("it is gone"))?.footer().map_err(io::Error::other)?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        io::Read::read_exact(&mut fs::File::open(&path)?, &mut bytes)?;
        let header = SegmentHeader::decode(&bytes).map_err(|e| wrong(&e.to_string()))?;
        let footer = footer.ok_or_else(|| wrong("it is not full"))?;
        if header.first_index != first || self.to < first + SEGMENT_LEAVES {
            return Err(wrong("it is not the segment to be pruned"));
        }
        Ok(PrunedSegment { header, footer, record: self.record })
    }
}
