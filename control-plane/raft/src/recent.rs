//! The newest entries of the log, in memory: what was just appended is read again by each follower's
//! replication and by the state machine, and need not be fetched and decoded each time.
//!
//! Invariants: holds the end of the log without a hole, or nothing; never more than its bounds. What it
//! does not hold whole is read from the database.

use std::collections::VecDeque;

use crate::raft_types::LogEntry;

/// Entries kept.
const MAX_ENTRIES: usize = 4_096;
/// Bytes of them, as encoded.
const MAX_BYTES: usize = 8 << 20;

/// The end of the log.
#[derive(Default)]
pub(crate) struct Recent {
    /// Each with its encoded length.
    entries: VecDeque<(LogEntry, usize)>,
    bytes: usize,
}

impl Recent {
    /// Entries with `start <= index < end`, stopping after `max_bytes` but never before one; `None` if
    /// some of them are not here.
    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Option<Vec<LogEntry>> {
        let (first, last) = (self.entries.front()?.0.log_id.index, self.entries.back()?.0.log_id.index);
        if end > last + 1 {
            return None;
        }
        let skipped = usize::try_from(start.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (entry, length) in self.entries.iter().skip(skipped).take_while(|(entry, _)| entry.log_id.index < end) {
            entries.push(entry.clone());
            bytes += length;
            if bytes >= max_bytes {
                break;
            }
        }
        Some(entries)
    }

    /// Adds entries that were appended, each with its encoded length.
    pub(crate) fn push(&mut self, appended: Vec<(LogEntry, usize)>) {
        for (entry, length) in appended {
            if self.entries.back().is_some_and(|(last, _)| last.log_id.index + 1 != entry.log_id.index) {
                self.clear();
            }
            self.entries.push_back((entry, length));
            self.bytes += length;
        }
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            self.pop_front();
        }
    }

    /// Forgets `from` and everything after it.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|(last, _)| last.log_id.index >= from) {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, length)| length);
        }
    }

    /// Forgets everything up to `last`.
    pub(crate) fn purge(&mut self, last: u64) {
        while self.entries.front().is_some_and(|(first, _)| first.log_id.index <= last) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |(_, length)| length);
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openraft::{entry::RaftEntry, vote::RaftLeaderId};

    use super::*;
    use crate::raft_types::{Command, LogId, Types};

    fn entry(index: u64, length: usize) -> (LogEntry, usize) {
        let leader = <Types as openraft::RaftTypeConfig>::LeaderId::new(1, 1);
        let id = LogId::new(leader.to_committed(), index);
        (LogEntry::new_normal(id, Command(Vec::new().into())), length)
    }

    fn read(recent: &Recent, start: u64, end: u64, max_bytes: usize) -> Option<Vec<u64>> {
        recent.read(start, end, max_bytes).map(|found| found.iter().map(|e| e.log_id.index).collect())
    }

    #[test]
    fn only_what_is_held_whole_is_read() {
        let mut recent = Recent::default();
        assert_eq!(read(&recent, 0, 1, 9), None, "nothing is known");
        recent.push((5..10).map(|index| entry(index, 3)).collect());
        assert_eq!(read(&recent, 5, 10, usize::MAX), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(read(&recent, 6, 8, usize::MAX), Some(vec![6, 7]));
        assert_eq!(read(&recent, 6, 9, 4), Some(vec![6, 7]), "a bound is passed by one entry");
        assert_eq!(read(&recent, 7, 9, 0), Some(vec![7]), "one is always read");
        assert_eq!(read(&recent, 4, 8, usize::MAX), None, "the beginning is not here");
        assert_eq!(read(&recent, 8, 11, usize::MAX), None, "the end is not here");
        assert_eq!(read(&recent, 8, u64::MAX, usize::MAX), None);
        recent.truncate(8);
        assert_eq!(read(&recent, 7, 9, usize::MAX), None, "truncated");
        recent.purge(5);
        assert_eq!(read(&recent, 5, 8, usize::MAX), None, "purged");
        assert_eq!((read(&recent, 6, 8, usize::MAX), recent.bytes), (Some(vec![6, 7]), 6));
        recent.push(vec![entry(20, 1)]);
        assert_eq!((read(&recent, 6, 8, 9), read(&recent, 20, 21, 9)), (None, Some(vec![20])), "never with a hole");
    }

    #[test]
    fn bounds_hold() {
        let mut recent = Recent::default();
        recent.push((0..MAX_ENTRIES as u64 + 7).map(|index| entry(index, 1)).collect());
        assert_eq!((recent.entries.len(), recent.entries[0].0.log_id.index), (MAX_ENTRIES, 7));
        let next = MAX_ENTRIES as u64 + 7;
        recent.push(vec![entry(next, MAX_BYTES), entry(next + 1, 1)]);
        assert_eq!((recent.entries.len(), recent.bytes), (1, 1), "an entry that fills it is let go");
    }
}
