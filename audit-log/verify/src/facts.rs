//! What one run of records says about completeness, found out apart from the runs before it.
//!
//! A log is checked by several threads, a block each. What can be judged within the block is judged
//! here; what meets its neighbours (a writer's first record here, calls that began or ended
//! elsewhere) is handed to [`crate::completeness`], which sees the runs in order. The two together
//! give what one pass over all records would give.

use provost_audit_core::{EventView, Hash, RecordView};
use provost_types::{KeyId, Phase};

use crate::noted::{Noted, TENANT_CHECKPOINT};

/// A record may be dated this much before a checkpoint that was signed before it: clocks of nodes
/// differ, and a record is dated when its event happened.
const CLOCK_TOLERANCE_NS: u64 = 15 * 60 * 1_000_000_000;

/// One writer's records in a run: where they begin and end.
#[derive(Debug)]
pub(crate) struct WriterRun {
    pub id: String,
    pub first: Link,
    pub last: Link,
}

/// A record as a link of its writer's chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub index: u64,
    pub epoch: u64,
    pub seq: u64,
    /// The leaf that it says precedes it.
    pub prev: Hash,
    pub hash: Hash,
}

/// A call, as far as the run tells.
#[derive(Debug)]
pub(crate) enum CallFact {
    /// It began and ended here.
    Whole { call: u128, intent: u64 },
    /// It began here. `writer` counts in [`Facts::writers`].
    Began { call: u128, intent: u64, writer: usize, epoch: u64 },
    /// It ended here, and began before (or never).
    Ended { call: u128, outcome: u64 },
}

/// A record that names a sealed body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyFact {
    pub index: u64,
    pub sealed: Hash,
    pub key: Option<KeyId>,
}

/// Everything that a run says.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub writers: Vec<WriterRun>,
    pub calls: Vec<CallFact>,
    /// Index and rule.
    pub violations: Vec<(u64, String)>,
    /// Index of records that are dated before a checkpoint that precedes them.
    pub back_dated: Vec<u64>,
    /// In the order of the records.
    pub bodies: Vec<BodyFact>,
    /// Keys that an erasure names.
    pub erased: Vec<KeyId>,
    /// In the cluster's log: the checkpoints of other logs, with their origins.
    pub noted: Vec<(String, Noted)>,
    /// Earliest and latest `time_ns`.
    pub times: (u64, u64),
}

/// The event that destroys keys.
const ERASE_EVENT: &str = "audit.erase";

/// An intent whose outcome has not been met: call, index, writer, epoch.
type Open = (u128, u64, usize, u64);

/// Collects the facts of a run, record by record.
pub(crate) struct Collector<'a> {
    tenant: &'a str,
    facts: Facts,
    /// Few: calls end soon. At worst a run is searched half as often as it has records.
    open: Vec<Open>,
    /// The writer of the latest record.
    latest: usize,
}

impl<'a> Collector<'a> {
    /// For `tenant`'s log; empty for the cluster's.
    pub(crate) fn new(tenant: &'a str) -> Self {
        Self { tenant, facts: Facts { times: (u64::MAX, 0), ..Facts::default() }, open: Vec::new(), latest: 0 }
    }

    /// `signed_ns`: when the newest checkpoint before this record was signed.
    pub(crate) fn observe(&mut self, index: u64, view: &RecordView<'_>, leaf: &[u8], hash: Hash, signed_ns: u64) {
        let facts = &mut self.facts;
        if let Some(sealed) = view.body_sealed {
            let key = view.body_key.and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
            facts.bodies.push(BodyFact { index, sealed, key });
        }
        match view.event.filter(|_| view.phase == Phase::Event) {
            Some(event) if event == ERASE_EVENT.as_bytes() => {
                let objects = EventView::read(leaf).unwrap_or_default().objects;
                let keys = objects.iter().filter_map(|object| object.strip_prefix("key:")?.parse::<KeyId>().ok());
                facts.erased.extend(keys);
            }
            Some(event) if event == TENANT_CHECKPOINT.as_bytes() && self.tenant.is_empty() => {
                facts.noted.extend(Noted::read(index, leaf));
            }
            _ => {}
        }
        if view.tenant.unwrap_or_default() != self.tenant.as_bytes() {
            facts.violations.push((index, "it belongs to another tenant's log".to_owned()));
        }
        if view.time_ns.saturating_add(CLOCK_TOLERANCE_NS) < signed_ns {
            facts.back_dated.push(index);
        }
        facts.times = (facts.times.0.min(view.time_ns), facts.times.1.max(view.time_ns));
        let link = Link { index, epoch: view.epoch, seq: view.seq, prev: view.prev, hash };
        let writer = self.follow(view.writer_id, link);
        let call = view.call_id.0;
        match view.phase {
            Phase::Intent => {
                if let Some(before) = self.open.iter_mut().find(|open| open.0 == call) {
                    self.facts.violations.push((index, SECOND_INTENT.to_owned()));
                    *before = (call, index, writer, view.epoch);
                } else {
                    self.open.push((call, index, writer, view.epoch));
                }
            }
            Phase::Outcome => {
                let at = self.open.iter().position(|open| open.0 == call);
                let intent = at.map(|at| self.open.swap_remove(at).1);
                self.facts.calls.push(match intent {
                    Some(intent) => CallFact::Whole { call, intent },
                    None => CallFact::Ended { call, outcome: index },
                });
            }
            Phase::Denied | Phase::Event => {}
        }
    }

    fn follow(&mut self, id: &[u8], link: Link) -> usize {
        let writers = &mut self.facts.writers;
        let same = |run: &WriterRun| run.id.as_bytes() == id;
        let known =
            if writers.get(self.latest).is_some_and(same) { Some(self.latest) } else { writers.iter().position(same) };
        self.latest = known.unwrap_or(writers.len());
        match writers.get_mut(self.latest) {
            Some(run) => {
                if let Some(what) = breach(&run.id, (run.last.epoch, run.last.seq, run.last.hash), &link) {
                    self.facts.violations.push((link.index, what));
                }
                run.last = link;
            }
            None => writers.push(WriterRun { id: String::from_utf8_lossy(id).into_owned(), first: link, last: link }),
        }
        self.latest
    }

    /// The facts; those of one call are in order.
    pub(crate) fn finish(mut self) -> Facts {
        let began = |open: Open| CallFact::Began { call: open.0, intent: open.1, writer: open.2, epoch: open.3 };
        self.facts.calls.extend(self.open.into_iter().map(began));
        self.facts
    }
}

/// The rule that two intents of one call break.
pub(crate) const SECOND_INTENT: &str = "a second intent of the same call";

/// How `link` fails to follow its writer's record before it (epoch, seq, leaf hash), if it does.
pub(crate) fn breach(writer: &str, before: (u64, u64, Hash), link: &Link) -> Option<String> {
    let (epoch, seq, hash) = before;
    let next = link.epoch == epoch && seq.checked_add(1) == Some(link.seq);
    let restart = link.epoch > epoch && link.seq == 1;
    if !next && !restart {
        let (to_epoch, to_seq) = (link.epoch, link.seq);
        return Some(format!(
            "writer {writer} goes from epoch {epoch}, seq {seq} to epoch {to_epoch}, seq {to_seq}: records are missing"
        ));
    }
    (link.prev != hash)
        .then(|| format!("writer {writer} does not link to its previous record: records are missing or replaced"))
}
