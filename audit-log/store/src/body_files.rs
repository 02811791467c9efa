//! Sealed bodies beside a log: one append-only file a segment, so that a segment's bodies go when
//! it goes.
//!
//! A body stands in the file of the segment that its record belongs to, even while the record is
//! still in the tail. Nothing here is fsynced; [`crate::persist`] does that, before the state that
//! describes the file. If the process dies, the next start cuts the file back like the others.

use std::{io, sync::Arc};

use provost_audit_core::{BODY_HEADER_LEN, BodyHeader, BodyPrefix, Hash, SEGMENT_LEAVES};
use provost_audit_verify::LogLayout;

use crate::{
    disk::{Disk, StoreFile},
    error::AuditError,
    log_files::{Differs, Dirty, cut},
    state::{BodyHead, LogHead},
};

/// The body file that is written to.
#[derive(Default)]
pub(crate) struct BodyFiles {
    file: Option<Arc<StoreFile>>,
    /// Frames that are not written yet.
    pending: Vec<u8>,
}

/// Frames that are gathered before they are written: bytes.
const MAX_PENDING: usize = 4 << 20;

/// First record of the segment that record `index` belongs to.
fn first_beside(index: u64) -> u64 {
    index - index % SEGMENT_LEAVES
}

impl BodyFiles {
    /// Appends the body of a record.
    pub(crate) fn append(
        &mut self,
        (disk, layout, origin): (&Disk, &LogLayout, &str),
        head: &mut BodyHead,
        dirty: &mut Dirty,
        (index, body): (u64, &[u8]),
    ) -> io::Result<()> {
        if !self.is_open_for(head, index) {
            let first = first_beside(index);
            self.flush(head, dirty)?;
            let file = disk.create(&layout.bodies(first))?;
            let header = BodyHeader { first_index: first, origin: Hash::of(origin.as_bytes()) };
            file.write_all_at(&header.encode(), 0)?;
            dirty.dirs.push(layout.segments());
            *head = BodyHead { first, len: BODY_HEADER_LEN as u64 };
            self.file = Some(file);
        }
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        self.pending.extend_from_slice(&BodyPrefix { index, len }.encode());
        self.pending.extend_from_slice(body);
        if self.pending.len() > MAX_PENDING { self.flush(head, dirty) } else { Ok(()) }
    }

    /// Whether the body of record `index` goes into the file that is written to.
    pub(crate) fn is_open_for(&self, head: &BodyHead, index: u64) -> bool {
        self.file.is_some() && head.first == first_beside(index)
    }

    /// Writes what was appended.
    pub(crate) fn flush(&mut self, head: &mut BodyHead, dirty: &mut Dirty) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| !self.pending.is_empty()) else { return Ok(()) };
        file.write_all_at(&self.pending, head.len)?;
        head.len += self.pending.len() as u64;
        self.pending.clear();
        dirty.add(file);
        Ok(())
    }

    /// Lets go of a file whose segment was pruned, with bodies for it that are not written yet: the prune
    /// removes it, and the state must not ask for it again.
    pub(crate) fn forget_before(&mut self, head: &mut BodyHead, to: u64) {
        if head.len > 0 && head.behind(to) != *head {
            *head = BodyHead::default();
            *self = Self::default();
        }
    }

    /// Opens the files as `head` describes them: what reaches further is cut off.
    pub(crate) fn reopen(
        disk: &Disk,
        layout: &LogLayout,
        head: &LogHead,
        differs: Differs<'_>,
    ) -> Result<Self, AuditError> {
        let bodies = head.bodies;
        for first in layout.list_bodies().map_err(AuditError::io(&layout.dir))? {
            if first > bodies.first || bodies.len == 0 {
                let path = layout.bodies(first);
                disk.remove(&path).map_err(AuditError::io(&path))?;
            }
        }
        let file = match bodies.len {
            0 => None,
            len => Some(cut(disk, layout.bodies(bodies.first), len, differs)?),
        };
        Ok(Self { file, pending: Vec::new() })
    }
}
