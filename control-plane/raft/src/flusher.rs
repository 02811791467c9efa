//! Group commit: one thread makes many appends durable with one fsync.
//!
//! Appends are written to the write-ahead log unsynced and queue their callbacks here. The thread
//! takes every callback that is waiting, syncs once, and completes them all; appends that arrive
//! during a sync share the next one.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use openraft::storage::IOFlushed;
use rocksdb::DB;

use crate::{log_store::fatal, raft_types::Types};

/// Appends that may wait for one sync. openraft keeps far fewer in flight.
const MAX_WAITING_APPENDS: usize = 65_536;

pub(crate) struct Flusher {
    queue: Option<SyncSender<IOFlushed<Types>>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn start(db: Arc<DB>, group: &str) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(MAX_WAITING_APPENDS);
        let thread = thread::Builder::new().name(format!("{group}-wal-sync")).spawn(move || run(&db, &waiting))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Completes `callback` after the next sync, which covers every write made before this call.
    pub(crate) fn sync_then(&self, callback: IOFlushed<Types>) -> io::Result<()> {
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(callback).map_err(|_| stopped())
    }
}

impl Drop for Flusher {
    /// Ends the thread after what is queued has been synced, so that no append is left unanswered.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(db: &DB, waiting: &Receiver<IOFlushed<Types>>) {
    let mut batch = Vec::new();
    while let Ok(first) = waiting.recv() {
        batch.push(first);
        batch.extend(waiting.try_iter());
        // Crash before the sync: none of the batch was acknowledged. After: all of it is on disk.
        if let Err(e) = db.flush_wal(true) {
            fatal("sync of the Raft log", &e);
        }
        for callback in batch.drain(..) {
            callback.io_completed(Ok(()));
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log's sync thread has ended")
}
