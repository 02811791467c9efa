//! What reaches the scheduler thread: requests, loaded models, the word to stop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::job::{Job, Work};
use crate::loader::Loaded;
use crate::places::Places;

/// Callers and the loader put in, the scheduler takes out.
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
    places: Arc<Places>,
}

#[derive(Default)]
struct Mail {
    jobs: Vec<Job>,
    loaded: Option<Loaded>,
    stopping: bool,
}

/// What one look brought.
pub(crate) struct Delivery {
    pub(crate) jobs: Vec<Job>,
    pub(crate) loaded: Option<Loaded>,
    pub(crate) stopping: bool,
}

impl Inbox {
    /// An inbox for at most `bound` requests that have not begun.
    pub(crate) fn new(bound: usize) -> Self {
        Self { mail: Mutex::new(Mail::default()), arrived: Condvar::new(), places: Places::new(bound) }
    }

    /// Puts a request in; gives it back when the queue is full or the node is stopping.
    pub(crate) fn submit(&self, work: Work) -> Result<(), Refused> {
        let mut mail = self.lock();
        if mail.stopping {
            return Err(Refused::Stopping);
        }
        let place = self.places.take(work.tenant()).map_err(|wait| Refused::Full { wait })?;
        mail.jobs.push(Job { work, arrived: Instant::now(), blocked_at: None, _place: place });
        self.arrived.notify_one();
        Ok(())
    }

    /// Puts the loader's result in; it loads one thing at a time, so there is room for one.
    pub(crate) fn deliver(&self, loaded: Loaded) {
        self.lock().loaded = Some(loaded);
        self.arrived.notify_one();
    }

    /// Tells the scheduler to stop.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.arrived.notify_one();
    }

    /// Takes everything; waits up to `patience` when there is nothing.
    pub(crate) fn take(&self, patience: Duration) -> Delivery {
        let mail = self.lock();
        let (mut mail, _) = self
            .arrived
            .wait_timeout_while(mail, patience, |mail| mail.jobs.is_empty() && mail.loaded.is_none() && !mail.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        Delivery { jobs: std::mem::take(&mut mail.jobs), loaded: mail.loaded.take(), stopping: mail.stopping }
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full; `wait` before the next try.
    Full {
        wait: Duration,
    },
    Stopping,
}
