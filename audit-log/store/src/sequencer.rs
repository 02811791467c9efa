//! One task that turns events into leaves and leaves into proposals.
//!
//! It begins with the group's word on where this writer stands, takes the next epoch and records
//! `log.start`, which fences every older process of its name. Then a batch starts when nothing is in
//! flight and the tasks beside it that could run have run; while batches are being committed the next
//! one collects. What a batch costs (a write, a sync, some ten wake-ups of tasks and threads) hardly
//! depends on its size, so it starts before they are done only behind a single record, where there is
//! nothing to gather, or when it has grown as large as they are and large enough for the cost not to
//! matter. So few large ones are made under load, and a record waits
//! for those under way at most. The machine refuses a batch that arrives before its predecessor, and answers one
//! that it has seen, so that sending again is always safe, at whichever replica.
//! Sending again goes on until the outcome is known: a batch whose fate is open blocks what comes
//! after it, because a later record would otherwise break the chain. Callers stop waiting at their
//! deadline; the task does not.
//! If the process dies with batches in flight, each is in the log or is not; the next start ends
//! its intents as `unknown`.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use parking_lot::Mutex;
use provost_types::{AuditEvent, AuditUnavailable, Phase};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    batch::{Batch, Build, Numbering, ReplyTo},
    begin::fenced,
    entry::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Reply},
    proposer::{ProposeError, Proposer},
    state::REMEMBERED_BATCHES,
};

/// Most batches in flight; fewer than the machine can answer again.
const MAX_PIPELINE: usize = 8;
const _: () = assert!(MAX_PIPELINE < REMEMBERED_BATCHES);
/// So few records in flight are a lone caller's: behind them there is nothing to gather.
const FEW: usize = 1;
/// Records that are worth a batch while others are in flight.
const LARGE_BATCH: usize = 64;
/// Events that wait for a batch; more callers wait for room.
pub(crate) const QUEUE: usize = 16_384;
/// First and longest pause before something is sent again. Another replica is asked each time, so
/// the longest is short: a caller waits for seconds.
pub(crate) const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// Outcomes of the task's own that one batch takes along.
const MAX_OWN: usize = 128;

/// A record that is to be made.
pub(crate) struct Asked {
    pub(crate) event: Box<AuditEvent>,
    pub(crate) reply: ReplyTo,
    /// Whoever asks brings it again: it need not be made when nobody waits for it any more.
    pub(crate) if_awaited: bool,
}

impl Asked {
    /// Nobody waits any more: the call of this intent will not run, or the record comes again.
    fn is_withdrawn(&self) -> bool {
        (self.if_awaited || self.event.phase == Phase::Intent) && self.reply.is_closed()
    }
}

/// What the task is told.
pub(crate) enum Message {
    /// Record this.
    Record(Asked),
    /// Finish what was taken, then end.
    Close(oneshot::Sender<()>),
}

/// How far the task has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The group has not taken this process's epoch yet.
    Starting,
    /// It writes.
    Writing {
        /// Its epoch.
        epoch: u64,
    },
    /// It never writes again.
    Failed(String),
}

/// What callers may know.
pub(crate) struct Shared {
    pub stage: watch::Sender<Stage>,
    /// Why what is on its way is not answered yet.
    pub cause: Mutex<Option<String>>,
}

type Sent = (Batch, Result<Reply, ProposeError>);

/// The task's state.
pub(crate) struct Sequencer {
    pub(crate) proposer: Arc<dyn Proposer>,
    cluster: String,
    pub(crate) numbering: Numbering,
    in_flight: FuturesOrdered<BoxFuture<'static, Sent>>,
    /// Records in flight.
    flying: usize,
    /// Taken from the queue for the next batch.
    waiting: Vec<Asked>,
    /// Outcomes that the task itself has to add.
    own: VecDeque<AuditEvent>,
    pub(crate) shared: Arc<Shared>,
    /// Why nothing can be recorded any more.
    failed: Option<String>,
}

impl Sequencer {
    pub(crate) fn new(proposer: Arc<dyn Proposer>, cluster: String, writer: String, shared: Arc<Shared>) -> Self {
        let numbering = Numbering::new(writer);
        let (in_flight, waiting, own) = Default::default();
        Self { proposer, cluster, numbering, in_flight, flying: 0, waiting, own, shared, failed: None }
    }

    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        if !self.begin(&queue).await {
            return;
        }
        let mut closing: Option<oneshot::Sender<()>> = None;
        let mut open = true;
        loop {
            let busy = !self.in_flight.is_empty();
            let room = open && self.waiting.len() < MAX_BATCH_RECORDS - MAX_OWN;
            let mut end = None;
            tokio::select! {
                biased;
                Some((batch, result)) = self.in_flight.next(), if busy => {
                    self.settle(batch, result).await;
                }
                message = queue.recv(), if room => match message {
                    Some(Message::Record(asked)) => {
                        self.waiting.push(asked);
                        end = self.take_more(&mut queue);
                    }
                    Some(Message::Close(done)) => end = Some(done),
                    None => open = false,
                },
                else => break,
            }
            if self.is_time() {
                let more = self.gather(&mut queue).await;
                end = end.or(more);
                let events = std::mem::take(&mut self.waiting);
                self.send_batch(events);
            }
            if !self.own.is_empty() && self.in_flight.is_empty() {
                self.send_batch(Vec::new());
            }
            if end.is_some() {
                queue.close();
                closing = end;
            }
        }
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// Takes whatever else waits, as far as one batch holds it.
    fn take_more(&mut self, queue: &mut mpsc::Receiver<Message>) -> Option<oneshot::Sender<()>> {
        while self.waiting.len() < MAX_BATCH_RECORDS - MAX_OWN {
            match queue.try_recv() {
                Ok(Message::Record(asked)) => self.waiting.push(asked),
                Ok(Message::Close(done)) => return Some(done),
                Err(_) => break,
            }
        }
        None
    }

    /// Lets what can run on this thread go first: what it records comes along. On an idle node that is at once.
    async fn gather(&mut self, queue: &mut mpsc::Receiver<Message>) -> Option<oneshot::Sender<()>> {
        tokio::task::yield_now().await;
        self.take_more(queue)
    }

    /// Whether what waits is to be sent now: nothing is in flight, or there is room and reason enough.
    fn is_time(&self) -> bool {
        let (batches, waiting) = (self.in_flight.len(), self.waiting.len());
        waiting > 0 && batches < self.pipeline() && (batches == 0 || is_enough(waiting, self.flying))
    }

    /// Most batches that may be in flight now.
    fn pipeline(&self) -> usize {
        self.proposer.pipeline().clamp(1, MAX_PIPELINE)
    }

    /// Sends events in as many batches as may be in flight; what is too large for these waits on, as the first.
    fn send_batch(&mut self, events: Vec<Asked>) {
        if let Some(why) = &self.failed {
            for asked in events {
                let _ = asked.reply.send(Err(AuditUnavailable(why.clone())));
            }
            return self.own.clear();
        }
        let mut build = Build::default();
        for _ in 0..self.own.len().min(MAX_OWN) {
            if let Some(event) = self.own.pop_front() {
                self.numbering.add(&mut build, Box::new(event), None);
            }
        }
        let mut events = events.into_iter();
        while let Some(asked) = events.next() {
            if asked.is_withdrawn() {
                continue;
            }
            if build.bytes >= MAX_BATCH_BYTES {
                self.propose(std::mem::take(&mut build));
                if self.in_flight.len() >= self.pipeline() {
                    self.waiting.push(asked);
                    self.waiting.extend(events);
                    return;
                }
            }
            self.numbering.add(&mut build, asked.event, Some(asked.reply));
        }
        self.propose(build);
    }

    fn propose(&mut self, build: Build) {
        let Some(batch) = self.numbering.batch(build) else { return };
        let proposer = self.proposer.clone();
        self.flying += batch.len();
        self.in_flight.push_back(Box::pin(async move {
            let result = proposer.propose(batch.bytes.clone()).await;
            (batch, result)
        }));
    }

    async fn settle(&mut self, batch: Batch, result: Result<Reply, ProposeError>) {
        let Some(batch) = self.take_answer(batch, result) else { return };
        // Its fate is open. Let the others come back, then send again in order, one at a time.
        let mut again = VecDeque::from([batch]);
        while let Some((batch, result)) = self.in_flight.next().await {
            again.extend(self.take_answer(batch, result));
        }
        let mut pause = RETRY.0;
        while let Some(batch) = again.pop_front() {
            tokio::time::sleep(pause).await;
            let result = self.proposer.clone().propose(batch.bytes.clone()).await;
            match self.take_answer(batch, result) {
                Some(batch) => {
                    again.push_front(batch);
                    pause = (pause * 2).min(RETRY.1);
                }
                None => pause = Duration::ZERO,
            }
        }
    }

    /// Answers the batch's callers; gives the batch back when it has to be sent again.
    fn take_answer(&mut self, batch: Batch, result: Result<Reply, ProposeError>) -> Option<Batch> {
        let records = batch.len();
        let open = self.take_reply(batch, result);
        if open.is_none() {
            self.flying = self.flying.saturating_sub(records);
        }
        open
    }

    fn take_reply(&mut self, batch: Batch, result: Result<Reply, ProposeError>) -> Option<Batch> {
        let fatal = match result {
            Ok(Reply::Appended(places)) => {
                self.shared.cause.lock().take();
                batch.acknowledge(&self.cluster, &places, &mut self.own);
                return None;
            }
            Ok(Reply::OutOfOrder { .. }) if self.failed.is_none() => return Some(batch),
            Ok(Reply::Fenced { epoch }) => fenced(&self.numbering.writer, epoch),
            Ok(other) => format!("the audit machine refused a batch: {other:?}"),
            Err(ProposeError::Again(why)) if self.failed.is_none() => {
                tracing::warn!(%why, "an audit batch is sent again");
                *self.shared.cause.lock() = Some(why);
                return Some(batch);
            }
            Err(e) => e.to_string(),
        };
        batch.refuse(&self.fail(fatal));
        None
    }

    /// Nothing is recorded from now on; gives the first reason.
    pub(crate) fn fail(&mut self, why: String) -> String {
        if self.failed.is_none() {
            tracing::error!(%why, "PV-AUDIT-UNAVAILABLE: nothing can be recorded any more");
            self.shared.stage.send_replace(Stage::Failed(why.clone()));
        }
        self.failed.get_or_insert(why).clone()
    }
}

/// Whether so many records that wait are a batch while so many others are in flight: behind one record, or as
/// many as are in flight and not few.
fn is_enough(waiting: usize, flying: usize) -> bool {
    flying <= FEW || waiting >= flying.clamp(LARGE_BATCH, MAX_BATCH_RECORDS - MAX_OWN)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::future::pending;
    use provost_types::{Body, KeptBody, KeyId, SealedBytes};
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::{own_events::own_event, proposer::WriterState, recovery::OpenCall};

    /// A group that never answers.
    struct Silent;

    impl Proposer for Silent {
        fn pipeline(&self) -> usize {
            3
        }
        fn writer_state(self: Arc<Self>, _: String) -> BoxFuture<'static, Result<WriterState, ProposeError>> {
            Box::pin(pending())
        }
        fn propose(self: Arc<Self>, _: Bytes) -> BoxFuture<'static, Result<Reply, ProposeError>> {
            Box::pin(pending())
        }
        fn open_calls(self: Arc<Self>, _: String, _: u64) -> BoxFuture<'static, Result<Vec<OpenCall>, ProposeError>> {
            Box::pin(pending())
        }
    }

    /// More in flight than the machine remembers could not be sent again.
    #[test]
    fn what_is_too_large_for_the_batches_in_flight_waits_on_in_its_order() {
        let shared = Arc::new(Shared { stage: watch::channel(Stage::Starting).0, cause: Mutex::default() });
        let mut sequencer = Sequencer::new(Arc::new(Silent), "provost".to_owned(), "n1".to_owned(), shared);
        let bytes = Bytes::from(vec![7; 256 << 10]);
        let mut callers = Vec::new();
        let events = (0..100).map(|n| {
            let mut event = Box::new(own_event("n1", "large", n));
            let kept = KeptBody::Sealed(SealedBytes { sha256: [0; 32], bytes: bytes.clone() });
            event.body = Some(Body { commit: [0; 32], key: KeyId([0; 16]), len: n, redaction: None, kept });
            let (reply, answer) = oneshot::channel();
            callers.push(answer);
            Asked { event, reply, if_awaited: false }
        });
        let events: Vec<Asked> = events.collect();
        sequencer.send_batch(events);
        assert_eq!(sequencer.in_flight.len(), 3, "{} records are in flight", sequencer.flying);
        let sent = sequencer.flying as u64;
        let waiting = sequencer.waiting.iter().map(|asked| asked.event.body.as_ref().map_or(0, |body| body.len));
        assert_eq!(waiting.collect::<Vec<_>>(), (sent..100).collect::<Vec<_>>());
        let waits = |caller: &mut oneshot::Receiver<_>| matches!(caller.try_recv(), Err(TryRecvError::Empty));
        assert!(callers.iter_mut().all(waits), "a record was given up");
    }

    #[test]
    fn a_batch_begins_behind_a_single_record_or_when_it_is_large() {
        const MOST: usize = MAX_BATCH_RECORDS - MAX_OWN;
        for (waiting, flying, expect) in [
            (1, 1, true),
            (1, 2, false),
            (2, 2, false),
            (63, 8, false),
            (64, 8, true),
            (64, 64, true),
            (64, 65, false),
            (65, 65, true),
            (MOST - 1, 4 * MOST, false),
            (MOST, 4 * MOST, true),
        ] {
            assert_eq!(is_enough(waiting, flying), expect, "{waiting} wait, {flying} are in flight");
        }
    }
}
