//! Follows logs as they grow, by their files: on a running node, or on a copy that does not grow.
//!
//! Invariants: each log's records come in order and once; a log that appears later is followed from
//! its first record; what was pruned before it was read is counted and said, not passed over.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use provost_audit_core::{LogId, SEGMENT_LEAVES};
use provost_audit_verify::{LogLayout, LogReader, list_logs};

use crate::{
    query::{Found, QueryError, records_from},
    scan::Parts,
};

/// Which tails a log has and how long they are: it grew when this changed.
type Seen = Vec<(u64, u64)>;

/// A log that is followed.
#[derive(Default)]
struct Followed {
    next: u64,
    /// As it was when its end was reached.
    seen: Option<Seen>,
}

/// Follows the logs of one audit directory. Blocking.
pub struct Follower {
    audit_dir: PathBuf,
    only: Vec<LogId>,
    logs: BTreeMap<LogId, Followed>,
    pruned: u64,
}

impl Follower {
    /// Follows these logs, or all when none is named; each from its first record.
    pub fn new(audit_dir: &Path, only: Vec<LogId>) -> Self {
        Self { audit_dir: audit_dir.to_owned(), only, logs: BTreeMap::new(), pruned: 0 }
    }

    /// The next record of `log` to come is `index`.
    pub fn set(&mut self, log: LogId, index: u64) {
        self.logs.insert(log, Followed { next: index, seen: None });
    }

    /// The next record of each log.
    pub fn positions(&self) -> BTreeMap<LogId, u64> {
        self.logs.iter().map(|(log, followed)| (log.clone(), followed.next)).collect()
    }

    /// Records that were pruned before they were read.
    pub fn pruned(&self) -> u64 {
        self.pruned
    }

    /// Logs that are shorter than what was read of them, with that.
    pub(crate) fn ahead(&self) -> Result<Vec<(LogId, u64)>, QueryError> {
        let mut found = Vec::new();
        for (log, followed) in self.logs.iter().filter(|(_, followed)| followed.next > 0) {
            let layout = LogLayout::new(self.audit_dir.join(log.folder()));
            if !layout.exists() || size_of(&layout)? < followed.next {
                found.push((log.clone(), followed.next));
            }
        }
        Ok(found)
    }

    /// Passes over everything that is there now, in logs that are not set.
    pub fn skip_to_end(&mut self) -> Result<(), QueryError> {
        for log in self.wanted()? {
            if !self.logs.contains_key(&log) {
                let size = size_of(&LogLayout::new(self.audit_dir.join(log.folder())))?;
                self.set(log, size);
            }
        }
        Ok(())
    }

    /// Up to `max` records and about `max_bytes` that came since; none when nothing did.
    pub fn poll(&mut self, max: usize, max_bytes: usize) -> Result<Vec<Found>, QueryError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for log in self.wanted()? {
            let layout = LogLayout::new(self.audit_dir.join(log.folder()));
            let seen = seen(&layout)?;
            let followed = self.logs.entry(log.clone()).or_default();
            if followed.seen.as_ref() == Some(&seen) {
                continue;
            }
            let kept = layout.list_pruned().map_err(|source| io(&layout, source))?;
            let kept = kept.last().map_or(0, |last| last + SEGMENT_LEAVES);
            if followed.next < kept {
                tracing::warn!(%log, from = followed.next, to = kept, "records were pruned before they were read");
                self.pruned += kept - followed.next;
                followed.next = kept;
            }
            let mut ended = true;
            for found in records_from(&self.audit_dir, &log, followed.next)? {
                let found = found?;
                followed.next = found.index + 1;
                bytes += found.leaf.len();
                batch.push(found);
                if batch.len() >= max || bytes >= max_bytes {
                    ended = false;
                    break;
                }
            }
            if !ended {
                return Ok(batch);
            }
            followed.seen = Some(seen);
        }
        Ok(batch)
    }

    fn wanted(&self) -> Result<Vec<LogId>, QueryError> {
        if !self.only.is_empty() {
            let there = |log: &&LogId| LogLayout::new(self.audit_dir.join(log.folder())).exists();
            return Ok(self.only.iter().filter(there).cloned().collect());
        }
        list_logs(&self.audit_dir).map_err(|source| QueryError::Io { path: self.audit_dir.clone(), source })
    }
}

/// Records of a log. Reads headers, not records.
fn size_of(layout: &LogLayout) -> Result<u64, QueryError> {
    let mut reader = LogReader::from_segment(layout.clone(), Parts::of(layout)?.rest).with_filter(Box::new(|_| false));
    while reader.next()?.is_some() {}
    Ok(reader.position())
}

fn seen(layout: &LogLayout) -> Result<Seen, QueryError> {
    let tails = layout.list_tails().map_err(|source| io(layout, source))?;
    // A tail that goes away in between has become part of a segment: the next look sees another.
    let len = |first: u64| fs::metadata(layout.tail(first)).map_or(0, |m| m.len());
    Ok(tails.into_iter().map(|first| (first, len(first))).collect())
}

fn io(layout: &LogLayout, source: std::io::Error) -> QueryError {
    QueryError::Io { path: layout.dir.clone(), source }
}
