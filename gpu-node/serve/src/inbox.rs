//! What reaches the scheduler thread: requests, loaded models, requests that were read, words of who wants the device alone, the
//! word to stop.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use provost_gpu_vram::ExclusiveToken;

use crate::error;
use crate::exclusive::{ExclusiveTerms, Reply};
use crate::job::{Job, Work};
use crate::loader::Loaded;
use crate::orders::{MOST_ORDERS, Order};
use crate::places::Places;
use crate::preparer::Done;

/// Words that may lie in the inbox; who asks for the device beyond is refused.
const MOST_WORDS: usize = 16;

/// Callers, the loader and the preparers put in, the scheduler takes out.
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
    places: Arc<Places>,
}

#[derive(Default)]
struct Mail {
    jobs: Vec<Job>,
    loaded: Option<Loaded>,
    prepared: Vec<Done>,
    words: Vec<Word>,
    orders: Vec<Order>,
    stopping: bool,
}

/// What is said by who wants the device alone, or has it.
pub(crate) enum Word {
    Ask { terms: ExclusiveTerms, reply: Reply },
    Beat { token: ExclusiveToken },
    End { token: ExclusiveToken },
}

/// What one look brought.
pub(crate) struct Delivery {
    pub(crate) jobs: Vec<Job>,
    pub(crate) loaded: Option<Loaded>,
    pub(crate) prepared: Vec<Done>,
    pub(crate) words: Vec<Word>,
    pub(crate) orders: Vec<Order>,
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
        mail.jobs.push(Job { work, arrived: Instant::now(), _place: place });
        self.arrived.notify_one();
        Ok(())
    }

    /// Puts the loader's result in; it loads one thing at a time, so there is room for one.
    pub(crate) fn deliver(&self, loaded: Loaded) {
        self.lock().loaded = Some(loaded);
        self.arrived.notify_one();
    }

    /// Puts what a preparer has done in; there are few at a time, and none begins before the last ones were taken out.
    pub(crate) fn deliver_prepared(&self, done: Done) {
        self.lock().prepared.push(done);
        self.arrived.notify_one();
    }

    /// Says a word; one that is not taken is dropped, and with it the place for its answer.
    pub(crate) fn say(&self, word: Word) {
        let mut mail = self.lock();
        let has_room = match &word {
            Word::Ask { .. } => mail.words.len() < MOST_WORDS,
            // One sign of life is as good as many.
            Word::Beat { token } => {
                !mail.words.iter().any(|said| matches!(said, Word::Beat { token: of } if of == token))
            }
            // There is one holder, and it ends once.
            Word::End { .. } => true,
        };
        if has_room && !mail.stopping {
            mail.words.push(word);
            self.arrived.notify_one();
        }
    }

    /// How many requests have not begun, and the time in which as many begin.
    pub(crate) fn waiting(&self) -> (usize, Duration) {
        self.places.taken()
    }

    /// True once the node stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Gives an order; one that is not taken is dropped, and with it the place for its answer.
    pub(crate) fn order(&self, order: Order) {
        let mut mail = self.lock();
        // That something was declared is never too much: it is said once, and takes no place.
        let is_said =
            matches!(order, Order::Declared) && mail.orders.iter().any(|said| matches!(said, Order::Declared));
        if !mail.stopping && !is_said && (mail.orders.len() < MOST_ORDERS || matches!(order, Order::Declared)) {
            mail.orders.push(order);
            self.arrived.notify_one();
        }
    }

    /// Tells the scheduler to stop.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.arrived.notify_one();
    }

    /// Nobody takes anything out any more: who waits hears of it, and who comes is refused.
    pub(crate) fn close(&self) {
        let mut mail = self.lock();
        mail.stopping = true;
        let (left, words) = (std::mem::take(&mut mail.jobs), std::mem::take(&mut mail.words));
        let orders = std::mem::take(&mut mail.orders);
        drop(mail);
        drop((words, orders));
        // Each gives its place back, without the lock.
        left.into_iter().for_each(|job| job.work.refuse(error::stopping()));
    }

    /// Takes everything; waits up to `patience` when there is nothing.
    pub(crate) fn take(&self, patience: Duration) -> Delivery {
        let mail = self.lock();
        let (mut mail, _) = self
            .arrived
            .wait_timeout_while(mail, patience, |mail| mail.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        Delivery {
            jobs: std::mem::take(&mut mail.jobs),
            loaded: mail.loaded.take(),
            prepared: std::mem::take(&mut mail.prepared),
            words: std::mem::take(&mut mail.words),
            orders: std::mem::take(&mut mail.orders),
            stopping: mail.stopping,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mail {
    fn is_empty(&self) -> bool {
        let has_results = self.loaded.is_some() || !self.prepared.is_empty();
        let has_words = !self.words.is_empty() || !self.orders.is_empty();
        self.jobs.is_empty() && !has_results && !has_words && !self.stopping
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// Closes the inbox when the thread that takes from it ends, be it by a panic: callers would wait for ever.
pub(crate) struct Closing(pub(crate) Arc<Inbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the thread of the device ended by a defect; no model answers until the node is restarted");
        }
        self.0.close();
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_gpu_vram::{Arbiter, ExclusiveRequest, Limits};
    use provost_types::EmbedRequest;
    use tokio::sync::oneshot;

    use super::*;

    fn work() -> (Work, oneshot::Receiver<Result<provost_types::EmbedResponse, provost_types::InferenceError>>) {
        let request = EmbedRequest { tenant: "acme".to_owned(), model: "m".to_owned(), inputs: vec!["a".to_owned()] };
        let (reply, answer) = oneshot::channel();
        (Work::Embed { request: Arc::new(request), reply }, answer)
    }

    #[test]
    fn signs_of_life_leave_room_for_who_asks() {
        let inbox = Inbox::new(1);
        let request = ExclusiveRequest { drain_micros: 1, heartbeat_micros: 1, most_micros: 1 };
        let token = Arbiter::new(Limits::new(1)).exclusive(0, request).unwrap();
        (0..2 * MOST_WORDS).for_each(|_| inbox.say(Word::Beat { token }));
        let terms = ExclusiveTerms { drain: Duration::ZERO, heartbeat: Duration::ZERO, most: Duration::ZERO };
        let (reply, _answer) = oneshot::channel();
        inbox.say(Word::Ask { terms, reply });
        let words = inbox.take(Duration::ZERO).words;
        assert!(matches!(words.as_slice(), [Word::Beat { .. }, Word::Ask { .. }]));
    }

    #[test]
    fn nobody_waits_for_a_thread_that_has_ended() {
        let inbox = Arc::new(Inbox::new(4));
        let (asked, mut answer) = work();
        inbox.submit(asked).unwrap();
        let closing = Closing(Arc::clone(&inbox));
        let ended = std::thread::spawn(move || {
            let _closing = closing;
            panic!("a defect");
        });
        assert!(ended.join().is_err());
        let told = answer.try_recv().unwrap().unwrap_err();
        assert!(told.message.contains("PV-INFERENCE-BUSY"), "{told:?}");
        assert_eq!(inbox.submit(work().0), Err(Refused::Stopping));
    }
}
