//! The Raft log and vote on RocksDB, as openraft's log storage.
//!
//! Writes go through one write-ahead log in the order in which they are made, so a sync covers
//! everything before it: a synced vote also makes earlier appends durable, and an unsynced
//! truncation can only be lost together with everything after it.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use rocksdb::{BoundColumnFamily, DB, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use crate::{
    codec,
    db::{self, LOG, META},
    flusher::Flusher,
    log_bytes::LogBytes,
    raft_types::{LogEntry, LogId, Types, Vote, room},
    recent::Recent,
};

const VOTE_KEY: &[u8] = b"vote";
const COMMITTED_KEY: &[u8] = b"committed";
const PURGED_KEY: &[u8] = b"purged";
/// Past every key of the log: indexes have eight bytes.
const LOG_END: [u8; 9] = [0xff; 9];
/// Bytes of entries read for one message to a follower; at least one entry is always read.
const MAX_READ_BYTES: usize = 4 << 20;

/// Ends the process. What a failed write or sync left on disk is unknown, and going on could
/// acknowledge what a restart then loses; a restart reads what is really there.
pub(crate) fn fatal(what: &str, error: &dyn std::fmt::Display) -> ! {
    #[cfg(test)]
    if crate::sim::is_simulated() {
        crate::sim::note_fatal(format!("{what} failed: {error}"));
        panic!("the simulated process ends: {what}: {error}");
    }
    tracing::error!(code = "PV-RAFT-FATAL", %error, "{what} failed; the process ends so that nothing unsafe is acknowledged");
    std::process::abort()
}

/// The log of one group; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    // Before `db`: the thread is joined while the database is still open.
    flusher: Flusher,
    db: Arc<DB>,
    /// The commit index, encoded; it is written with the next append.
    committed: Mutex<Option<Vec<u8>>>,
    recent: Mutex<Recent>,
    bytes: Arc<LogBytes>,
    /// Last: dropping it tells that the database is closed.
    _open: Open,
}

/// Held while something keeps a group's files open; `Group::shutdown` waits until all are dropped.
pub(crate) type Open = tokio::sync::watch::Sender<()>;

impl Drop for Inner {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(true);
    }
}

impl LogStore {
    pub(crate) fn new(db: Arc<DB>, group: &str, open: Open) -> io::Result<Self> {
        let flusher = Flusher::start(db.clone(), group)?;
        let bytes = Arc::new(count(&db)?);
        let (committed, recent) = Default::default();
        Ok(Self { inner: Arc::new(Inner { flusher, db, committed, recent, bytes, _open: open }) })
    }

    /// How many bytes the log has, as that changes.
    pub(crate) fn bytes(&self) -> Arc<LogBytes> {
        self.inner.bytes.clone()
    }

    fn committed(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.inner.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.inner.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn db(&self) -> &DB {
        &self.inner.db
    }

    fn family(&self, name: &str) -> io::Result<Arc<BoundColumnFamily<'_>>> {
        db::family(self.db(), name)
    }

    fn read_meta<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let bytes = self.db().get_pinned_cf(&self.family(META)?, key).map_err(io::Error::other)?;
        bytes.map(|b| codec::decode(&b)).transpose()
    }

    fn write(&self, what: &str, batch: WriteBatch, sync: bool) {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        if let Err(e) = self.db().write_opt(batch, &options) {
            fatal(what, &e);
        }
    }

    fn last_entry(&self) -> io::Result<Option<LogId>> {
        match self.db().iterator_cf(&self.family(LOG)?, IteratorMode::End).next() {
            None => Ok(None),
            Some(item) => {
                let (_, value) = item.map_err(io::Error::other)?;
                Ok(Some(codec::decode::<LogEntry>(&value)?.log_id))
            }
        }
    }

    /// Entries with `start <= index < end`, stopping after `max_bytes` but never before one.
    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<LogEntry>> {
        if let Some(entries) = self.recent().read(start, end, max_bytes) {
            return Ok(entries);
        }
        let mut entries = Vec::new();
        if start >= end {
            return Ok(entries);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end.to_be_bytes().to_vec());
        let from = start.to_be_bytes();
        let mode = IteratorMode::From(&from, Direction::Forward);
        let mut bytes = 0;
        for item in self.db().iterator_cf_opt(&self.family(LOG)?, options, mode) {
            let (_, value) = item.map_err(io::Error::other)?;
            let entry: LogEntry = codec::decode(&value)?;
            check_no_hole(&entries, &entry)?;
            bytes += value.len();
            entries.push(entry);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(entries)
    }
}

/// Counts what is there when the log is opened.
fn count(db: &DB) -> io::Result<LogBytes> {
    let bytes = LogBytes::default();
    for item in db.iterator_cf(&db::family(db, LOG)?, IteratorMode::Start) {
        let (key, value) = item.map_err(io::Error::other)?;
        if let Ok(index) = <[u8; 8]>::try_from(&key[..]) {
            bytes.push(u64::from_be_bytes(index), value.len());
        }
    }
    Ok(bytes)
}

fn check_no_hole(read: &[LogEntry], next: &LogEntry) -> io::Result<()> {
    match read.last() {
        Some(last) if last.log_id.index + 1 != next.log_id.index => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the log has a hole between {} and {}", last.log_id.index, next.log_id.index),
        )),
        _ => Ok(()),
    }
}

fn half_open<RB: RangeBounds<u64>>(range: &RB) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        self.read(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.read(start, end, MAX_READ_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.read_meta(VOTE_KEY)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let last_purged_log_id: Option<LogId> = self.read_meta(PURGED_KEY)?;
        let last_log_id = self.last_entry()?.or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Durable before it returns: a vote given twice would elect two leaders.
    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.family(META)?, VOTE_KEY, codec::encode(vote)?);
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.write("save of the vote", batch, true))
            .await
            .map_err(io::Error::other)
    }

    /// Written with the next append: after a crash an older value only means that the leader says it
    /// again.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        *self.committed() = Some(codec::encode(&committed)?);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        if let Some(waiting) = &*self.committed() {
            return codec::decode(waiting);
        }
        Ok(self.read_meta::<Option<LogId>>(COMMITTED_KEY)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = WriteBatch::default();
        let mut appended = Vec::new();
        {
            let log = self.family(LOG)?;
            for entry in entries {
                let bytes = codec::encode_about(&entry, room(&entry))?;
                batch.put_cf(&log, entry.log_id.index.to_be_bytes(), &bytes);
                appended.push((entry, bytes.len()));
            }
            if let Some(committed) = self.committed().take() {
                batch.put_cf(&self.family(META)?, COMMITTED_KEY, committed);
            }
        }
        self.write("append to the Raft log", batch, false);
        appended.iter().for_each(|(entry, bytes)| self.inner.bytes.push(entry.log_id.index, *bytes));
        self.recent().push(appended);
        self.inner.flusher.sync_then(callback)
    }

    /// Not synced: if a power cut brings the tail back, the node is as it was before the leader
    /// told it to truncate, and is told again.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let first_removed = last_log_id.map_or(0, |id| id.index + 1);
        let mut batch = WriteBatch::default();
        let from = first_removed.to_be_bytes();
        batch.delete_range_cf(&self.family(LOG)?, from.as_slice(), LOG_END.as_slice());
        self.write("truncation of the Raft log", batch, false);
        self.recent().truncate(first_removed);
        self.inner.bytes.truncate(first_removed);
        Ok(())
    }

    /// Marker and removal are one batch: a crash leaves both or neither.
    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.family(META)?, PURGED_KEY, codec::encode(&log_id)?);
        let end = log_id.index.saturating_add(1).to_be_bytes();
        let start = 0_u64.to_be_bytes();
        batch.delete_range_cf(&self.family(LOG)?, start.as_slice(), end.as_slice());
        self.write("purge of the Raft log", batch, false);
        self.recent().purge(log_id.index);
        self.inner.bytes.purge(log_id.index);
        Ok(())
    }
}
