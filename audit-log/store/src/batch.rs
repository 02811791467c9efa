//! A writer's batches: leaves in the making, their bytes on the way, and who waits for them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use provost_audit_core::{Hash, LogId, Place, encode_record, leaf_hash};
use provost_types::{AuditEvent, AuditReceipt, AuditUnavailable, CallStatus, KeptBody, Phase};
use tokio::sync::oneshot;

use crate::{
    entry::{Append, AppendRecord, Command},
    proposer::WriterState,
    state::WriterChain,
};

pub(crate) type Answer = Result<AuditReceipt, AuditUnavailable>;
pub(crate) type ReplyTo = oneshot::Sender<Answer>;

/// A record in a batch and who waits for it.
struct Slot {
    log: LogId,
    hash: Hash,
    /// Kept for intents: see [`Batch::acknowledge`].
    intent: Option<Box<AuditEvent>>,
    reply: Option<ReplyTo>,
}

/// A batch as it is proposed, any number of times.
pub(crate) struct Batch {
    pub bytes: Bytes,
    slots: Vec<Slot>,
}

/// Leaves that are not proposed yet.
#[derive(Default)]
pub(crate) struct Build {
    records: Vec<AppendRecord>,
    slots: Vec<Slot>,
    pub bytes: usize,
}

/// Where this process's records go: numbers and links them.
pub(crate) struct Numbering {
    pub writer: String,
    pub epoch: u64,
    next_batch: u64,
    chains: BTreeMap<LogId, WriterChain>,
}

impl Numbering {
    pub(crate) fn new(writer: String) -> Self {
        Self { writer, epoch: 0, next_batch: 0, chains: BTreeMap::new() }
    }

    /// Continues the chains in a new epoch.
    pub(crate) fn begin(&mut self, state: WriterState) {
        self.epoch = state.epoch + 1;
        self.next_batch = 0;
        self.chains = state.chains;
    }

    /// The chains as they stand after this epoch's first record.
    pub(crate) fn take_chains(&mut self, state: WriterState) {
        self.chains = state.chains;
    }

    /// Makes the leaf and takes the writer's next place in its log.
    pub(crate) fn add(&mut self, build: &mut Build, mut event: Box<AuditEvent>, reply: Option<ReplyTo>) {
        let log = LogId(event.tenant.clone());
        let chain = self.chains.entry(log.clone()).or_default();
        let seq = chain.next_seq(self.epoch);
        let place = Place { writer_id: &self.writer, epoch: self.epoch, seq, prev: chain.prev };
        let leaf = match encode_record(&event, &place) {
            Ok(leaf) => leaf,
            Err(e) => {
                let _ = reply.map(|reply| reply.send(Err(AuditUnavailable(e.to_string()))));
                return;
            }
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

    /// The next batch; `None` when there is nothing in it.
    pub(crate) fn batch(&mut self, build: Build) -> Option<Batch> {
        if build.records.is_empty() {
            return None;
        }
        let (writer, epoch, batch) = (self.writer.clone(), self.epoch, self.next_batch);
        self.next_batch += 1;
        let append = Append { writer, epoch, batch, records: build.records };
        Some(Batch { bytes: Bytes::from(Command::Append(append).encode()), slots: build.slots })
    }
}

impl Batch {
    /// Its records.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Answers those who wait, by the first index in each log. An intent that became durable after
    /// its caller had stopped waiting did not run: its outcome, which says so, goes into `own`.
    pub(crate) fn acknowledge(self, cluster: &str, places: &[(LogId, u64)], own: &mut VecDeque<AuditEvent>) {
        let place = |(log, first): &(LogId, u64)| (log.clone(), (log.origin(cluster), *first));
        let mut next: BTreeMap<LogId, (String, u64)> = places.iter().map(place).collect();
        for slot in self.slots {
            let (log, index) = match next.get_mut(&slot.log) {
                Some((origin, next)) => {
                    *next += 1;
                    (origin.clone(), *next - 1)
                }
                None => (slot.log.origin(cluster), 0),
            };
            let receipt = AuditReceipt { log, index, leaf_hash: slot.hash.0 };
            let Some(reply) = slot.reply else { continue };
            if let (Err(_), Some(intent)) = (reply.send(Ok(receipt)), slot.intent) {
                own.push_back(abandoned(*intent));
            }
        }
    }

    /// Refuses all who wait.
    pub(crate) fn refuse(self, why: &str) {
        for reply in self.slots.into_iter().filter_map(|slot| slot.reply) {
            let _ = reply.send(Err(AuditUnavailable(why.to_owned())));
        }
    }
}

fn abandoned(intent: AuditEvent) -> AuditEvent {
    AuditEvent {
        phase: Phase::Outcome,
        status: Some(CallStatus::Cancelled),
        error: Some("PV-AUDIT-LATE".to_owned()),
        reason: Some("the intent became durable after the caller had stopped waiting; the call did not run".to_owned()),
        guards: Vec::new(),
        body: None,
        ..intent
    }
}
