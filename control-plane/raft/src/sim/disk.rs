//! A Raft log on a disk that forgets: writes are visible at once and durable after a sync, as on
//! RocksDB's write-ahead log. A crash keeps what was synced and a part of what came after, cut
//! anywhere.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard},
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use tokio::sync::mpsc;

use super::random::Random;
use crate::raft_types::{LogEntry, LogId, Types, Vote};

/// Entries read for one message to a follower.
const MAX_READ_ENTRIES: usize = 64;

#[derive(Clone)]
enum Write {
    Append(Vec<LogEntry>),
    /// Everything from this index on goes.
    Truncate(u64),
    Purge(LogId),
    Vote(Vote),
    Committed(Option<LogId>),
}

#[derive(Clone, Default)]
struct Image {
    log: BTreeMap<u64, LogEntry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Image {
    fn write(&mut self, write: Write) {
        match write {
            Write::Append(entries) => self.log.extend(entries.into_iter().map(|e| (e.log_id.index, e))),
            Write::Truncate(from) => drop(self.log.split_off(&from)),
            Write::Purge(upto) => {
                self.log = self.log.split_off(&(upto.index + 1));
                self.purged = Some(upto);
            }
            Write::Vote(vote) => self.vote = Some(vote),
            Write::Committed(committed) => self.committed = committed,
        }
    }
}

struct State {
    /// What a reader sees.
    live: Image,
    /// What a crash leaves.
    durable: Image,
    /// Written and not durable, in order.
    pending: Vec<Write>,
    /// Writes so far, and how many of them are durable.
    written: u64,
    synced: u64,
    random: Random,
    slow: bool,
    /// Says that it synced and does not: what a test must find out.
    lies: bool,
}

/// One node's disk; outlives crashes.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(super) fn new(random: Random, lies: bool) -> Self {
        let (live, durable) = (Image::default(), Image::default());
        let state = State { live, durable, pending: Vec::new(), written: 0, synced: 0, random, slow: false, lies };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn set_slow(&self, slow: bool) {
        self.lock().slow = slow;
    }

    /// A power cut: of what was not synced, a random beginning survives.
    pub(super) fn crash(&self) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        let kept = state.random.below(state.pending.len() as u64 + 1) as usize;
        let lost = state.pending.len() - kept;
        for write in state.pending.drain(..).take(kept) {
            state.durable.write(write);
        }
        state.live = state.durable.clone();
        state.synced = state.written;
        lost
    }

    pub(super) fn entries(&self) -> Vec<LogEntry> {
        self.lock().live.log.values().cloned().collect()
    }

    fn write(&self, write: Write) -> u64 {
        let mut state = self.lock();
        state.live.write(write.clone());
        state.pending.push(write);
        state.written += 1;
        state.written
    }

    /// Makes everything durable that was written before the call.
    async fn sync(&self) {
        let (upto, delay) = {
            let mut state = self.lock();
            let range = if state.slow { 50..400 } else { 1..8 };
            (state.written, state.random.millis(range))
        };
        tokio::time::sleep(delay).await;
        let mut state = self.lock();
        let state = &mut *state;
        if state.lies {
            return;
        }
        let count = upto.saturating_sub(state.synced) as usize;
        for write in state.pending.drain(..count) {
            state.durable.write(write);
        }
        state.synced = state.synced.max(upto);
    }
}

/// The log of one run of a node.
#[derive(Clone)]
pub(super) struct SimLog {
    disk: Disk,
    flush: mpsc::UnboundedSender<IOFlushed<Types>>,
}

impl SimLog {
    /// Starts the task that makes many appends durable with one sync.
    pub(super) fn open(disk: Disk) -> Self {
        let (flush, mut waiting) = mpsc::unbounded_channel::<IOFlushed<Types>>();
        let syncing = disk.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, 1_024).await > 0 {
                syncing.sync().await;
                for callback in batch.drain(..) {
                    callback.io_completed(Ok(()));
                }
            }
        });
        Self { disk, flush }
    }

    fn read(&self, range: impl RangeBounds<u64>, limit: usize) -> Vec<LogEntry> {
        self.disk.lock().live.log.range(range).take(limit).map(|(_, entry)| entry.clone()).collect()
    }
}

impl RaftLogReader<Types> for SimLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.read((range.start_bound().cloned(), range.end_bound().cloned()), usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        Ok(self.read((Bound::Included(start), Bound::Excluded(end)), MAX_READ_ENTRIES))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.disk.lock().live.vote)
    }
}

impl RaftLogStorage<Types> for SimLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.disk.lock();
        let last_purged_log_id = state.live.purged;
        let last_log_id = state.live.log.values().next_back().map(|e| e.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.disk.write(Write::Vote(*vote));
        self.disk.sync().await;
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.disk.write(Write::Committed(committed));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.disk.lock().live.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.disk.write(Write::Append(entries.into_iter().collect()));
        self.flush.send(callback).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.disk.write(Write::Truncate(last_log_id.map_or(0, |id| id.index + 1)));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.disk.write(Write::Purge(log_id));
        Ok(())
    }
}
