//! The whole device for one user, such as a training run.
//!
//! Whoever asks waits until what runs has ended. Then all models go, and nobody else is served until the
//! holder gives the device back, shows no sign of life for too long, or has had its time. Then the models
//! that were there come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use provost_gpu_vram::{ExclusiveRequest, ExclusiveToken};
use provost_types::InferenceError;
use tokio::sync::oneshot;

use crate::error;
use crate::inbox::{Inbox, Word};
use crate::stats::micros;
use crate::turns::Turns;

/// What the user of a whole device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveTerms {
    /// What runs may run on for this long; if it has not ended then, the request fails.
    pub drain: Duration,
    /// The holder shows a sign of life at least this often.
    pub heartbeat: Duration,
    /// It ends after this time whatever happens.
    pub most: Duration,
}

/// The device, alone. Dropping it gives the device back.
#[derive(Debug)]
pub struct ExclusiveDevice {
    inbox: Arc<Inbox>,
    token: ExclusiveToken,
    is_over: Arc<AtomicBool>,
}

/// Waits until the device is the caller's alone. Dropping the future stops asking.
pub(crate) async fn ask(inbox: &Inbox, terms: ExclusiveTerms) -> Result<ExclusiveDevice, InferenceError> {
    let (reply, answer) = oneshot::channel();
    inbox.say(Word::Ask { terms, reply });
    answer.await.unwrap_or_else(|_| Err(error::stopping()))
}

/// Where the answer to a request for the device goes.
pub(crate) type Reply = oneshot::Sender<Result<ExclusiveDevice, InferenceError>>;

/// Who waits for the device, or has it.
#[derive(Default)]
pub(crate) struct Exclusivity(Option<Holder>);

struct Holder {
    token: ExclusiveToken,
    /// Until it is granted.
    reply: Option<Reply>,
    is_over: Arc<AtomicBool>,
}

impl ExclusiveDevice {
    /// Shows a sign of life. False: the device is not the holder's any more, who has to stop.
    pub fn beat(&self) -> bool {
        let lives = !self.is_over();
        if lives {
            self.inbox.say(Word::Beat { token: self.token });
        }
        lives
    }

    /// True when the device is not the holder's any more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

impl Drop for ExclusiveDevice {
    fn drop(&mut self) {
        self.inbox.say(Word::End { token: self.token });
    }
}

impl Drop for Holder {
    /// Be it that it ended, or that the thread of the device did.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Exclusivity {
    /// Does what was said to the scheduler.
    pub(crate) fn hear(&mut self, word: Word, turns: &mut Turns) {
        match word {
            Word::Ask { terms, reply } => self.ask(terms, reply, turns),
            Word::Beat { token } => {
                turns.heartbeat(token);
            }
            Word::End { token } => self.end(token, turns),
        }
    }

    fn ask(&mut self, terms: ExclusiveTerms, reply: Reply, turns: &mut Turns) {
        if reply.is_closed() {
            // Those who wait would be refused for nobody.
            return;
        }
        let request = ExclusiveRequest {
            drain_micros: micros(terms.drain),
            heartbeat_micros: micros(terms.heartbeat),
            most_micros: micros(terms.most),
        };
        match turns.exclusive(request) {
            Ok(token) => {
                let is_over = Arc::new(AtomicBool::new(false));
                self.0 = Some(Holder { token, reply: Some(reply), is_over });
            }
            Err(why) => drop(reply.send(Err(error::of_rejection("", &why)))),
        }
    }

    /// Stops asking for whoever does not wait any more.
    pub(crate) fn drop_cancelled(&mut self, turns: &mut Turns) {
        let gone = self.0.as_ref().filter(|holder| holder.reply.as_ref().is_some_and(Reply::is_closed));
        if let Some(token) = gone.map(|holder| holder.token) {
            self.end(token, turns);
        }
    }

    /// The device is the holder's. One that does not wait any more gives it back by not taking it.
    pub(crate) fn granted(&mut self, token: ExclusiveToken, inbox: &Arc<Inbox>) {
        if let Some(holder) = self.0.as_mut().filter(|holder| holder.token == token) {
            let is_over = Arc::clone(&holder.is_over);
            let device = ExclusiveDevice { inbox: Arc::clone(inbox), token, is_over };
            if let Some(reply) = holder.reply.take() {
                drop(reply.send(Ok(device)));
            }
        }
    }

    /// What ran did not end in time, or the holder's time is over.
    pub(crate) fn over(&mut self, token: ExclusiveToken) {
        let holder = self.0.take_if(|holder| holder.token == token);
        if let Some(reply) = holder.and_then(|mut holder| holder.reply.take()) {
            drop(reply.send(Err(error::not_drained())));
        }
    }

    fn end(&mut self, token: ExclusiveToken, turns: &mut Turns) {
        self.0.take_if(|holder| holder.token == token);
        turns.end_exclusive(token);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_gpu_vram::{Action, Limits};

    use super::*;

    #[test]
    fn nobody_is_refused_for_who_does_not_wait_any_more() {
        let (mut exclusivity, mut turns) = (Exclusivity::default(), Turns::new(Limits::new(1)));
        let second = Duration::from_secs(1);
        let terms = ExclusiveTerms { drain: second, heartbeat: second, most: second };
        let (reply, answer) = oneshot::channel();
        drop(answer);
        exclusivity.hear(Word::Ask { terms, reply }, &mut turns);
        let (reply, mut answer) = oneshot::channel();
        exclusivity.hear(Word::Ask { terms, reply }, &mut turns);
        assert!(answer.try_recv().is_err(), "it waits, and is not told that somebody else has the device");
        assert!(turns.poll().contains(&Action::ExclusiveGranted { token: exclusivity.0.as_ref().unwrap().token }));
    }
}
