//! Threads that check blocks.
//!
//! Invariants: the number of threads and of blocks in work is bounded, and with them the memory;
//! without threads (one core, or none could be started) the caller's own thread does the work.

use std::{
    num::NonZero,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use crate::{
    block_check::{Ask, Scratch, Seen, check_blocks},
    segment_file::BlockPlace,
    walk::ReadFault,
};

/// Most threads: the sum of their buffers (32 MiB each at worst, 1 MiB usually) stays small.
const MAX_THREADS: usize = 8;
/// Batches in work for each thread: enough that none waits while results are put together.
const BATCHES_PER_THREAD: usize = 3;

/// Blocks that one thread checks together, with what is asked of each.
pub(crate) type Batch = Vec<(BlockPlace, Ask)>;
/// The blocks of a batch, in order, and what they show.
pub(crate) type Checked = Vec<(BlockPlace, Result<Seen, ReadFault>)>;

struct Job {
    batch: Batch,
    reply: mpsc::SyncSender<Checked>,
}

/// The threads. They end when this is dropped.
pub(crate) struct Pool {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// A batch in work.
pub(crate) enum Pending {
    Done(Checked),
    Waiting(Option<BlockPlace>, mpsc::Receiver<Checked>),
}

impl Pool {
    pub(crate) fn start() -> Self {
        let wanted = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let spawn = |n: usize| {
            let queue = queue.clone();
            thread::Builder::new().name(format!("audit-verify-{n}")).spawn(move || work(&queue)).ok()
        };
        Self { jobs: Some(jobs), threads: (0..wanted).filter_map(spawn).collect() }
    }

    /// Batches to keep in work.
    pub(crate) fn window(&self) -> usize {
        self.threads.len().max(1) * BATCHES_PER_THREAD
    }

    /// Begins to check blocks.
    pub(crate) fn submit(&self, batch: Batch) -> Pending {
        let Some(jobs) = self.jobs.as_ref().filter(|_| !self.threads.is_empty()) else {
            return Pending::Done(check(batch, &mut Scratch::default()));
        };
        let first = batch.first().map(|(place, _)| place.clone());
        let (reply, receiver) = mpsc::sync_channel(1);
        match jobs.send(Job { batch, reply }) {
            Ok(()) => Pending::Waiting(first, receiver),
            Err(mpsc::SendError(job)) => Pending::Done(check(job.batch, &mut Scratch::default())),
        }
    }
}

impl Pending {
    pub(crate) fn wait(self) -> Checked {
        match self {
            Pending::Done(checked) => checked,
            Pending::Waiting(first, receiver) => receiver.recv().unwrap_or_else(|_| {
                let ended = |place: BlockPlace| {
                    let fault = place.fault("the thread that read it ended");
                    (place, Err(fault))
                };
                first.map(ended).into_iter().collect()
            }),
        }
    }
}

fn check(batch: Batch, scratch: &mut Scratch) -> Checked {
    let checked = check_blocks(&batch, scratch);
    batch.into_iter().map(|(place, _)| place).zip(checked).collect()
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; its block was reported as unreadable.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    let mut scratch = Scratch::default();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { batch, reply }) = job else { return };
        // Nobody waits any more when an earlier block was found to be wrong.
        let _ = reply.send(check(batch, &mut scratch));
    }
}
