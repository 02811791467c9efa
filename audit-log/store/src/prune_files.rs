//! The files of a prune: what stays is written first, what goes is removed last.
//!
//! Between the two the machine's state becomes durable, so that a crash leaves one of: everything
//! as it was; what stays beside what goes (the Raft log, or the next start, removes the rest);
//! done. Whatever stands beside a segment under its number goes with it.

use std::{fs, io};

use provost_audit_core::{
    Frontier, Hash, PRUNED_LEN, PrunedSegment, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentHeader, chain_start,
};
use provost_audit_verify::{LogLayout, SegmentFile};

use crate::{
    disk::Disk,
    state::{BodyHead, LogHead},
};

/// The prune of one log's files.
#[derive(Clone)]
pub(crate) struct PruneFiles {
    pub disk: Disk,
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
            self.disk.replace(&path, &stays.encode())?;
            written = true;
        }
        if written { self.disk.sync_dir(&self.layout.segments()) } else { Ok(()) }
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
                self.disk.remove(&entry.path())?;
                removed = true;
            }
        }
        if removed { self.disk.sync_dir(&dir) } else { Ok(()) }
    }

    /// Takes what stays from another replica, as the files end to end, and writes it; gives the head of a
    /// log of which nothing else is there. That head is right if the records after it lead to what the
    /// group agreed on.
    pub(crate) fn take(&self, bytes: &[u8], origin: &str) -> io::Result<LogHead> {
        let wrong = |why: &str| io::Error::other(format!("PV-AUDIT-BEHIND: what stays of pruned records: {why}"));
        let (mut tree, mut chain, mut record) = (Frontier::default(), chain_start(origin), None);
        for part in bytes.chunks(PRUNED_LEN) {
            let stays = PrunedSegment::decode(part).map_err(|e| wrong(&e.to_string()))?;
            let SegmentHeader { first_index: first, origin: of, chain_in } = &stays.header;
            if (*first, *of, *chain_in) != (tree.size(), Hash::of(origin.as_bytes()), chain) {
                return Err(wrong("a part does not continue the one before"));
            }
            let path = self.layout.pruned(*first);
            if !path.exists() {
                self.disk.replace(&path, part)?;
            }
            tree.append_subtree(stays.footer.root, SEGMENT_LEAVES.trailing_zeros());
            (chain, record) = (stays.footer.chain_out, Some(stays.record));
        }
        if (tree.size(), record) != (self.to, Some(self.record)) {
            return Err(wrong("it is of another prune"));
        }
        Ok(LogHead {
            frontier: tree,
            chain,
            segment_len: 0,
            tail_first: self.to,
            tail_len: 0,
            bodies: BodyHead::default(),
        })
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
