//! Records that were pruned: what stands for them, and whether the log says that they were to go.
//!
//! Only whole segments go, and only from the front, so that what remains has no holes. The roots
//! that stay are not trusted: the tree over them must lead to the roots that are signed, and the
//! chain of the first kept record must go on from theirs.

use std::{io, path::Path};

use provost_audit_core::{
    BLOCK_RECORDS, Frontier, Hash, LogId, PRUNED_LEN, PruneNote, PrunedSegment, Record, SEGMENT_LEAVES, chain_start,
};

use crate::{
    ReadFault,
    layout::LogLayout,
    regular,
    report::{Failure, LogReport, State},
    segment_read::{SegmentFile, after},
    verdicts::{unjudged, verdict},
};

/// Where what stays of a segment names the record that says so.
const RECORD_OFFSET: u64 = PRUNED_LEN as u64 - 40;

/// What was pruned from the front of a log.
pub(crate) struct Prefix {
    /// The first record that is kept.
    pub kept: u64,
    /// Chain and tree of everything before it.
    pub chain: Hash,
    pub tree: Frontier,
    /// Where the record of the last prune is.
    pub record: u64,
}

/// The first record that is kept, by the names of files.
pub fn first_kept(layout: &LogLayout) -> io::Result<u64> {
    Ok(layout.list_pruned()?.last().map_or(0, |last| last + SEGMENT_LEAVES))
}

/// What stays of the segment that begins at `first`.
pub fn read_pruned(layout: &LogLayout, first: u64) -> Result<PrunedSegment, ReadFault> {
    let path = layout.pruned(first);
    let fault = |what: String, missing| ReadFault { file: path.clone(), offset: 0, index: first, what, missing };
    let bytes =
        regular::read(&path, PRUNED_LEN).map_err(|e| fault(e.to_string(), e.kind() != io::ErrorKind::FileTooLarge))?;
    let found = PrunedSegment::decode(&bytes).map_err(|e| fault(e.to_string(), false))?;
    if found.header.first_index != first {
        return Err(fault("it is of another segment".to_owned(), false));
    }
    Ok(found)
}

/// Reads what was pruned; `None` when nothing was.
pub(crate) fn prefix(layout: &LogLayout, origin: &str) -> Result<Option<Prefix>, ReadFault> {
    let io = |e: io::Error| {
        let file = layout.segments();
        ReadFault { file, offset: 0, index: 0, what: e.to_string(), missing: true }
    };
    let firsts = layout.list_pruned().map_err(io)?;
    if firsts.is_empty() {
        return Ok(None);
    }
    let mut found = Prefix { kept: 0, chain: chain_start(origin), tree: Frontier::default(), record: 0 };
    for first in firsts {
        let missing = |index: u64| {
            let what = "neither the segment nor what stays of a pruned one is there".to_owned();
            ReadFault { file: layout.pruned(index), offset: 0, index, what, missing: true }
        };
        if first != found.kept {
            return Err(missing(found.kept));
        }
        let part = read_pruned(layout, first)?;
        let wrong = |what: &str| {
            let (file, what) = (layout.pruned(first), what.to_owned());
            ReadFault { file, offset: 8, index: first, what, missing: false }
        };
        if part.header.origin != Hash::of(origin.as_bytes()) {
            return Err(wrong("it belongs to another log"));
        }
        if part.header.chain_in != found.chain {
            return Err(wrong("it does not continue the chain"));
        }
        found.tree.append_subtree(part.footer.root, SEGMENT_LEAVES.trailing_zeros());
        found.chain = part.footer.chain_out;
        found.record = part.record;
        found.kept = first + SEGMENT_LEAVES;
    }
    Ok(Some(found))
}

/// A log whose pruned part is missing or is not what it was.
pub(crate) fn unreadable(log: &LogId, origin: &str, fault: &ReadFault) -> LogReport {
    let mut report = unjudged(log, &format!("what stays of pruned records: {}", fault.what));
    report.origin = origin.to_owned();
    let attack = match fault.missing {
        true => format!("input is missing: {}", fault.what),
        false => format!("what stays of pruned records was changed: {}", fault.what),
    };
    if !fault.missing {
        report.integrity = verdict(State::Failed, attack.clone());
    }
    report.failure = Some(failure(attack, fault.index, &fault.file, fault.offset, 0));
    report
}

fn failure(attack: String, index: u64, file: &Path, offset: u64, good: u64) -> Failure {
    let file = file.to_owned();
    Failure { attack, index, file, offset, expected: None, actual: None, last_good_checkpoint: good }
}

impl Prefix {
    /// RETENTION of a log of which something was pruned and whose records hold: does a signed record
    /// cover exactly what is gone?
    pub(crate) fn judge(&self, layout: &LogLayout, report: &mut LogReport) {
        let kept = self.kept;
        match self.note(layout, report.signed) {
            Ok(note) => {
                report.retention.text = format!(
                    "records 0 to {kept} were pruned ({}), as record {} says; all {} since are present",
                    note.policy,
                    self.record,
                    report.records.saturating_sub(kept)
                );
            }
            Err(why) => {
                let text = format!("records 0 to {kept} are gone and the log does not say that they were to go: {why}");
                report.retention = verdict(State::Failed, text.clone());
                let file = layout.pruned(kept.saturating_sub(SEGMENT_LEAVES));
                report.failure.get_or_insert(failure(text, kept, &file, RECORD_OFFSET, report.signed));
            }
        }
    }

    fn note(&self, layout: &LogLayout, signed: u64) -> Result<PruneNote, String> {
        let record = self.record;
        if record < self.kept || record >= signed {
            return Err("no signed record covers them".to_owned());
        }
        let note = match read_record(layout, record) {
            Ok(Some(record)) => PruneNote::of(&record),
            _ => None,
        };
        let note = note.ok_or_else(|| format!("record {record} is no log.prune record"))?;
        if note.to != self.kept || note.root != self.tree.root() || note.chain != self.chain {
            return Err(format!("record {record} speaks of other records"));
        }
        Ok(note)
    }
}

/// One record, from its block or from the tail.
fn read_record(layout: &LogLayout, index: u64) -> Result<Option<Record<'static>>, ReadFault> {
    let first = index - index % SEGMENT_LEAVES;
    let decode = |leaf: &[u8]| Record::decode(leaf).ok();
    if let Some(mut segment) = SegmentFile::open(layout, first)? {
        let mut offset = provost_audit_core::SEGMENT_HEADER_LEN as u64;
        for n in 0..=u8::MAX {
            let Some(header) = segment.header(n, offset)? else { break };
            if index < header.first_index + BLOCK_RECORDS {
                let mut block = segment.block(n, offset, &header)?;
                return Ok(block.find(|(at, _)| *at == index).and_then(|(_, leaf)| decode(leaf)));
            }
            offset = after(offset, &header);
        }
    }
    let mut reader = crate::LogReader::from_segment(layout.clone(), first).with_filter(Box::new(|_| false));
    while let Some(chunk) = reader.next()? {
        if let Some((_, leaf)) = chunk.iter().find(|(at, _)| *at == index) {
            return Ok(decode(leaf));
        }
    }
    Ok(None)
}
