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
    block_check::{Ask, Scratch, Seen, check_block},
    segment_file::BlockPlace,
    walk::ReadFault,
};

/// Most threads: the sum of their buffers (32 MiB each at worst, 1 MiB usually) stays small.
const MAX_THREADS: usize = 8;
/// Blocks in work for each thread: enough that none waits while results are put together.
const BLOCKS_PER_THREAD: usize = 6;

type Checked = Result<Seen, ReadFault>;

struct Job {
    place: BlockPlace,
    ask: Ask,
    reply: mpsc::SyncSender<Checked>,
}

/// The threads. They end when this is dropped.
pub(crate) struct Pool {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// A block in work.
pub(crate) enum Pending {
    Done(Box<Checked>),
    Waiting(BlockPlace, mpsc::Receiver<Checked>),
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

    /// Blocks to keep in work.
    pub(crate) fn window(&self) -> usize {
        self.threads.len().max(1) * BLOCKS_PER_THREAD
    }

    /// Begins to check a block.
    pub(crate) fn submit(&self, place: BlockPlace, ask: Ask) -> Pending {
        let Some(jobs) = self.jobs.as_ref().filter(|_| !self.threads.is_empty()) else {
            return Pending::Done(Box::new(check_block(&place, &ask, &mut Scratch::default())));
        };
        let (reply, receiver) = mpsc::sync_channel(1);
        match jobs.send(Job { place: place.clone(), ask, reply }) {
            Ok(()) => Pending::Waiting(place, receiver),
            Err(mpsc::SendError(job)) => {
                Pending::Done(Box::new(check_block(&place, &job.ask, &mut Scratch::default())))
            }
        }
    }
}

impl Pending {
    pub(crate) fn wait(self) -> Checked {
        match self {
            Pending::Done(checked) => *checked,
            Pending::Waiting(place, receiver) => {
                receiver.recv().unwrap_or_else(|_| Err(place.fault("the thread that read it ended")))
            }
        }
    }
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
        let Ok(Job { place, ask, reply }) = job else { return };
        // Nobody waits any more when an earlier block was found to be wrong.
        let _ = reply.send(check_block(&place, &ask, &mut scratch));
    }
}
