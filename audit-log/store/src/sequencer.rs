//! One task that turns events into leaves and leaves into proposals.
//!
//! A batch starts at once when nothing is in flight; while batches are being committed the next
//! one collects, so that the batch grows with the load. Up to [`PIPELINE`] are in flight.
//! The task is the writer: it alone numbers and links this node's records. The machine refuses a
//! batch that arrives before its predecessor, and answers one that it has seen, so that sending
//! again is always safe. Sending again goes on until the outcome is known: a batch whose fate is
//! open blocks what comes after it, because a later record would otherwise break the chain.
//! If the process dies with batches in flight, each is in the log or is not; the next start ends
//! its intents as `unknown`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use provost_audit_core::{Hash, LogId, Place, encode_record, leaf_hash};
use provost_control_raft::{Group, GroupError, Proposed};
use provost_types::{AuditEvent, AuditReceipt, AuditUnavailable, CallStatus, KeptBody, Phase};
use tokio::sync::{mpsc, oneshot};

use crate::{
    entry::{Append, AppendRecord, Command, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Reply},
    state::{REMEMBERED_BATCHES, WriterChain},
};

/// Batches in flight; fewer than the machine can answer again.
pub(crate) const PIPELINE: usize = 4;
const _: () = assert!(PIPELINE < REMEMBERED_BATCHES);
/// Events that wait for a batch; more callers wait for room.
pub(crate) const QUEUE: usize = 16_384;
/// First and longest pause before a batch is sent again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(crate) type Answer = Result<AuditReceipt, AuditUnavailable>;

/// What the task is told.
pub(crate) enum Message {
    /// Record this.
    Record(Box<AuditEvent>, oneshot::Sender<Answer>),
    /// Finish what was taken, then end.
    Close(oneshot::Sender<()>),
}

/// A record in a batch and who waits for it.
struct Slot {
    log: LogId,
    hash: Hash,
    /// Kept for intents: see [`Sequencer::end_abandoned`].
    intent: Option<Box<AuditEvent>>,
    reply: Option<oneshot::Sender<Answer>>,
}

struct Batch {
    bytes: Bytes,
    slots: Vec<Slot>,
}

type Sent = (Batch, Result<Proposed, GroupError>);

/// The task's state.
pub(crate) struct Sequencer {
    group: Group,
    cluster: String,
    writer: String,
    epoch: u64,
    next_batch: u64,
    chains: BTreeMap<LogId, WriterChain>,
    in_flight: FuturesOrdered<BoxFuture<'static, Sent>>,
    /// Outcomes that the task itself has to add.
    own: VecDeque<AuditEvent>,
    /// Why nothing can be recorded any more.
    failed: Option<String>,
}

impl Sequencer {
    pub(crate) fn new(
        group: Group,
        cluster: String,
        writer: String,
        epoch: u64,
        chains: BTreeMap<LogId, WriterChain>,
    ) -> Self {
        Self {
            group,
            cluster,
            writer,
            epoch,
            next_batch: 0,
            chains,
            in_flight: FuturesOrdered::new(),
            own: VecDeque::new(),
            failed: None,
        }
    }

    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut closing: Option<oneshot::Sender<()>> = None;
        let mut open = true;
        loop {
            let busy = !self.in_flight.is_empty();
            let room = open && self.in_flight.len() < PIPELINE;
            tokio::select! {
                biased;
                Some((batch, result)) = self.in_flight.next(), if busy => {
                    self.settle(batch, result).await;
                }
                message = queue.recv(), if room => match message {
                    Some(Message::Record(event, reply)) => {
                        if let Some(done) = self.start(event, reply, &mut queue) {
                            queue.close();
                            closing = Some(done);
                        }
                    }
                    Some(Message::Close(done)) => {
                        queue.close();
                        closing = Some(done);
                    }
                    None => open = false,
                },
                else => break,
            }
            if !self.own.is_empty() && self.in_flight.is_empty() {
                self.send_batch(Vec::new());
            }
        }
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// Starts a batch with `event` and whatever else waits.
    fn start(
        &mut self,
        event: Box<AuditEvent>,
        reply: oneshot::Sender<Answer>,
        queue: &mut mpsc::Receiver<Message>,
    ) -> Option<oneshot::Sender<()>> {
        let mut events = vec![(event, reply)];
        let mut closing = None;
        while events.len() < MAX_BATCH_RECORDS - MAX_OWN {
            match queue.try_recv() {
                Ok(Message::Record(event, reply)) => events.push((event, reply)),
                Ok(Message::Close(done)) => {
                    closing = Some(done);
                    break;
                }
                Err(_) => break,
            }
        }
        self.send_batch(events);
        closing
    }

    fn send_batch(&mut self, events: Vec<(Box<AuditEvent>, oneshot::Sender<Answer>)>) {
        let mut build = Build::default();
        for _ in 0..self.own.len().min(MAX_OWN) {
            if let Some(event) = self.own.pop_front() {
                self.add(&mut build, Box::new(event), None);
            }
        }
        for (event, reply) in events {
            // Nobody waits for this intent any more, so its call will not run.
            if event.phase == Phase::Intent && reply.is_closed() {
                continue;
            }
            if build.bytes >= MAX_BATCH_BYTES {
                self.propose(std::mem::take(&mut build));
            }
            self.add(&mut build, event, Some(reply));
        }
        self.propose(build);
    }

    /// Makes the leaf and takes the writer's next place in its log.
    fn add(&mut self, build: &mut Build, mut event: Box<AuditEvent>, reply: Option<oneshot::Sender<Answer>>) {
        let refuse = |reply: Option<oneshot::Sender<Answer>>, why: String| {
            if let Some(reply) = reply {
                let _ = reply.send(Err(AuditUnavailable(why)));
            }
        };
        if let Some(why) = &self.failed {
            return refuse(reply, why.clone());
        }
        let log = LogId(event.tenant.clone());
        let chain = self.chains.entry(log.clone()).or_default();
        let seq = chain.next_seq(self.epoch);
        let place = Place { writer_id: &self.writer, epoch: self.epoch, seq, prev: chain.prev };
        let leaf = match encode_record(&event, &place) {
            Ok(leaf) => leaf,
            Err(e) => return refuse(reply, e.to_string()),
        };
        let hash = leaf_hash(&leaf);
        *chain = WriterChain { epoch: self.epoch, seq, prev: hash };
        let body = match event.body.take().map(|body| body.kept) {
            Some(KeptBody::Sealed(sealed)) => Some(sealed.bytes),
            _ => None,
        };
        let record = AppendRecord { log: log.clone(), leaf: Bytes::from(leaf), body };
        build.bytes += record.encoded_len();
        build.records.push(record);
        let intent = (event.phase == Phase::Intent).then_some(event);
        build.slots.push(Slot { log, hash, intent, reply });
    }

    fn propose(&mut self, build: Build) {
        if build.records.is_empty() {
            return;
        }
        let append =
            Append { writer: self.writer.clone(), epoch: self.epoch, batch: self.next_batch, records: build.records };
        self.next_batch += 1;
        let bytes = Bytes::from(Command::Append(append).encode());
        let batch = Batch { bytes, slots: build.slots };
        let group = self.group.clone();
        self.in_flight.push_back(Box::pin(async move {
            let result = group.propose(batch.bytes.clone()).await;
            (batch, result)
        }));
    }

    async fn settle(&mut self, batch: Batch, result: Result<Proposed, GroupError>) {
        let Some(batch) = self.take_answer(batch, result) else { return };
        // Its fate is open. Let the others come back, then send again in order, one at a time.
        let mut again = VecDeque::from([batch]);
        while let Some((batch, result)) = self.in_flight.next().await {
            again.extend(self.take_answer(batch, result));
        }
        let mut pause = RETRY.0;
        while let Some(batch) = again.pop_front() {
            tokio::time::sleep(pause).await;
            let result = self.group.propose(batch.bytes.clone()).await;
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
    fn take_answer(&mut self, batch: Batch, result: Result<Proposed, GroupError>) -> Option<Batch> {
        let fatal = match result.map(|proposed| Reply::decode(&proposed.reply)) {
            Ok(Ok(Reply::Appended(places))) => {
                self.acknowledge(batch, &places);
                return None;
            }
            Ok(Ok(Reply::OutOfOrder { .. })) if self.failed.is_none() => return Some(batch),
            Ok(Ok(Reply::Fenced { epoch })) => {
                format!("another process writes as {} (epoch {epoch})", self.writer)
            }
            Ok(Ok(other)) => format!("the audit machine refused a batch: {other:?}"),
            Ok(Err(e)) => e.to_string(),
            Err(
                e @ (GroupError::NotLeader { .. }
                | GroupError::OutcomeUnknown
                | GroupError::NoQuorum(_)
                | GroupError::Busy(_)
                | GroupError::Timeout { .. }),
            ) if self.failed.is_none() => {
                tracing::warn!(error = %e, "an audit batch is sent again");
                return Some(batch);
            }
            Err(e) => e.to_string(),
        };
        if self.failed.is_none() {
            tracing::error!(why = %fatal, "PV-AUDIT-UNAVAILABLE: nothing can be recorded any more");
        }
        let why = self.failed.get_or_insert(fatal).clone();
        for reply in batch.slots.into_iter().filter_map(|slot| slot.reply) {
            let _ = reply.send(Err(AuditUnavailable(why.clone())));
        }
        None
    }

    fn acknowledge(&mut self, batch: Batch, places: &[(LogId, u64)]) {
        let mut next: BTreeMap<&LogId, u64> = places.iter().map(|(log, i)| (log, *i)).collect();
        for slot in batch.slots {
            let index = next.get_mut(&slot.log).map(|next| {
                let index = *next;
                *next += 1;
                index
            });
            let receipt = AuditReceipt {
                log: slot.log.origin(&self.cluster),
                index: index.unwrap_or_default(),
                leaf_hash: slot.hash.0,
            };
            let Some(reply) = slot.reply else { continue };
            if let (Err(_), Some(intent)) = (reply.send(Ok(receipt)), slot.intent) {
                self.end_abandoned(*intent);
            }
        }
    }

    /// The intent became durable after its caller had stopped waiting: the call was refused and
    /// did not run, which the log must say too.
    fn end_abandoned(&mut self, intent: AuditEvent) {
        self.own.push_back(AuditEvent {
            phase: Phase::Outcome,
            status: Some(CallStatus::Cancelled),
            error: Some("PV-AUDIT-LATE".to_owned()),
            reason: Some(
                "the intent became durable after the caller had stopped waiting; the call did not run".to_owned(),
            ),
            body: None,
            ..intent
        });
    }
}

/// Outcomes of the task's own that one batch takes along.
const MAX_OWN: usize = 128;

#[derive(Default)]
struct Build {
    records: Vec<AppendRecord>,
    slots: Vec<Slot>,
    bytes: usize,
}
