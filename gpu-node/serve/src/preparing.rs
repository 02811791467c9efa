//! The requests that are being read, or wait for it.
//!
//! Whoever matters most is read next, and among equals who came first; one tenant never has all of the threads. Reading has a
//! deadline: a request that takes longer is refused, and its thread has no other until it is done with it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_gpu_infer::InferError;
use provost_gpu_vram::Priority;

use crate::catalogue::Entry;
use crate::job::Job;
use crate::loader::TextSide;
use crate::preparer::{Done, PREPARERS, Preparer, Task};
use crate::turns::{ADMISSION_DEADLINE, Prepared};

/// Threads that one tenant may have at a time.
const PREPARERS_OF_ONE: usize = PREPARERS - 1;
/// Longest time that reading one request may take.
pub(crate) const PREPARE_DEADLINE: Duration = Duration::from_secs(10);

/// Requests on their way to being prepared.
pub(crate) struct Preparing {
    preparer: Preparer,
    deadline: Duration,
    /// In order of arrival; the places of the inbox bound them.
    waiting: Vec<Reading>,
    /// By number of the task.
    running: HashMap<u64, Running>,
    next: u64,
}

/// A request with the model that it is read for.
pub(crate) struct Reading {
    pub(crate) job: Job,
    pub(crate) entry: Arc<Entry>,
    pub(crate) text: TextSide,
    pub(crate) class: Priority,
}

struct Running {
    tenant: String,
    since: Instant,
    /// None: nobody waits for it any more.
    reading: Option<(Job, Arc<Entry>)>,
}

/// A request that was read, with its model as its files were then.
pub(crate) struct WasRead {
    pub(crate) job: Job,
    pub(crate) entry: Arc<Entry>,
    pub(crate) result: Result<Prepared, InferError>,
}

/// Requests that were not read in time.
#[derive(Default)]
pub(crate) struct Overdue {
    /// They take too long.
    pub(crate) slow: Vec<Job>,
    /// Others did.
    pub(crate) late: Vec<Job>,
}

impl Preparing {
    pub(crate) fn new(preparer: Preparer, deadline: Duration) -> Self {
        Self { preparer, deadline, waiting: Vec::new(), running: HashMap::new(), next: 0 }
    }

    /// Lets a request wait to be read.
    pub(crate) fn push(&mut self, reading: Reading) {
        self.waiting.push(reading);
    }

    /// Begins what there are threads for.
    pub(crate) fn begin(&mut self) {
        while self.running.len() < PREPARERS {
            let Some(at) = self.next_one() else { return };
            let Reading { job, entry, text, .. } = self.waiting.remove(at);
            let number = self.next;
            self.next += 1;
            let task = Task { number, asked: job.work.asked(), entry: Arc::clone(&entry), text };
            if !self.preparer.begin(task) {
                // The threads end with the scheduler alone; dropping the request tells its caller so.
                return;
            }
            let tenant = job.work.tenant().to_owned();
            self.running.insert(number, Running { tenant, since: Instant::now(), reading: Some((job, entry)) });
        }
    }

    /// Takes in what a thread has done. None: nobody waits for it.
    pub(crate) fn take_in(&mut self, done: Done) -> Option<WasRead> {
        let Done { number, result } = done;
        let (job, entry) = self.running.remove(&number)?.reading?;
        Some(WasRead { job, entry, result })
    }

    /// Takes out those that were not read in time.
    pub(crate) fn take_overdue(&mut self) -> Overdue {
        let mut overdue = Overdue::default();
        for running in self.running.values_mut().filter(|running| running.since.elapsed() >= self.deadline) {
            overdue.slow.extend(running.reading.take().map(|(job, _)| job));
        }
        let is_late = |reading: &mut Reading| reading.job.arrived.elapsed() >= ADMISSION_DEADLINE;
        overdue.late.extend(self.waiting.extract_if(.., is_late).map(|reading| reading.job));
        overdue
    }

    /// Forgets those for whose answer nobody waits any more.
    pub(crate) fn drop_cancelled(&mut self) {
        self.waiting.retain(|reading| !reading.job.work.is_cancelled());
        for running in self.running.values_mut() {
            running.reading.take_if(|(job, _)| job.work.is_cancelled());
        }
    }

    /// Takes everyone out.
    pub(crate) fn take_all(&mut self) -> Vec<Job> {
        let waiting = self.waiting.drain(..).map(|reading| reading.job);
        let running = self.running.values_mut().filter_map(|running| running.reading.take());
        waiting.chain(running.map(|(job, _)| job)).collect()
    }

    /// The longest time that reading one request may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// For how long nothing is overdue; at most `most`.
    pub(crate) fn patience(&self, most: Duration) -> Duration {
        let waited_for = self.running.values().filter(|running| running.reading.is_some());
        waited_for.map(|running| self.deadline.saturating_sub(running.since.elapsed())).fold(most, Duration::min)
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.jobs().map(|job| job.work.tenant())
    }

    /// The models that are asked for, a name a request.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.jobs().map(|job| job.work.model())
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs().count()
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        let running = self.running.values().filter_map(|running| running.reading.as_ref());
        self.waiting.iter().map(|reading| &reading.job).chain(running.map(|(job, _)| job))
    }

    /// Whose turn it is among those whose tenants have a thread left.
    fn next_one(&self) -> Option<usize> {
        let threads = |tenant: &str| self.running.values().filter(|running| running.tenant == tenant).count();
        let may = |reading: &Reading| threads(reading.job.work.tenant()) < PREPARERS_OF_ONE;
        let (at, _) = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, reading)| may(reading))
            .min_by_key(|(_, reading)| Reverse(reading.class))?;
        Some(at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
