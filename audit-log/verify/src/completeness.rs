//! Rules across records: writers' chains, and one outcome for each intent.

use std::collections::HashMap;

use provost_audit_core::{Hash, RecordView};
use provost_types::Phase;

use crate::report::Violation;

/// Violations that are listed; more are counted.
const MAX_LISTED: usize = 100;
/// Intents that may be open at once; a log that goes beyond is reported, not followed.
const MAX_OPEN: usize = 4_000_000;
/// Writers that one log may have.
const MAX_WRITERS: usize = 65_536;

/// What one log has shown so far.
pub(crate) struct Completeness {
    tenant: String,
    /// Whether records before the first one read exist.
    partial: bool,
    writers: HashMap<String, Chain>,
    open: HashMap<u128, OpenIntent>,
    pub violations: Vec<Violation>,
    pub count: u64,
}

struct Chain {
    epoch: u64,
    seq: u64,
    last: Hash,
    writer: u32,
}

struct OpenIntent {
    index: u64,
    writer: u32,
    epoch: u64,
}

impl Completeness {
    pub(crate) fn new(tenant: &str, partial: bool) -> Self {
        Self {
            tenant: tenant.to_owned(),
            partial,
            writers: HashMap::new(),
            open: HashMap::new(),
            violations: Vec::new(),
            count: 0,
        }
    }

    pub(crate) fn observe(&mut self, index: u64, view: &RecordView<'_>, hash: Hash) {
        if view.tenant.unwrap_or_default() != self.tenant {
            self.violation(index, "it belongs to another tenant's log");
        }
        let writer = self.follow_writer(index, view, hash);
        match view.phase {
            Phase::Intent => {
                if self.open.len() >= MAX_OPEN {
                    self.violation(index, "too many calls are open at once to be followed");
                    return;
                }
                let intent = OpenIntent { index, writer, epoch: view.epoch };
                if self.open.insert(view.call_id.0, intent).is_some() {
                    self.violation(index, "a second intent of the same call");
                }
            }
            Phase::Outcome => {
                if self.open.remove(&view.call_id.0).is_none() && !self.partial {
                    self.violation(index, "an outcome without intent, or a second outcome");
                }
            }
            Phase::Denied | Phase::Event => {}
        }
    }

    /// Intents still open; those of an epoch that its writer has left are violations.
    pub(crate) fn finish(&mut self) -> u64 {
        let epochs: HashMap<u32, u64> = self.writers.values().map(|chain| (chain.writer, chain.epoch)).collect();
        let left = |i: &&OpenIntent| epochs.get(&i.writer).is_some_and(|now| *now > i.epoch);
        let mut lost: Vec<u64> = self.open.values().filter(left).map(|i| i.index).collect();
        lost.sort_unstable();
        let open = self.open.len() - lost.len();
        for index in lost {
            self.violation(index, "an intent without outcome, though its writer started again");
        }
        open as u64
    }

    fn follow_writer(&mut self, index: u64, view: &RecordView<'_>, hash: Hash) -> u32 {
        let known = self.writers.len();
        let Some(chain) = self.writers.get_mut(view.writer_id) else {
            if known >= MAX_WRITERS {
                self.violation(index, "too many writers to be followed");
                return u32::MAX;
            }
            let first = view.prev == Hash::ZERO && view.seq == 1;
            if !first && !self.partial {
                self.violation(index, "the writer's first record here says that others precede it");
            }
            let writer = known as u32;
            let chain = Chain { epoch: view.epoch, seq: view.seq, last: hash, writer };
            self.writers.insert(view.writer_id.to_owned(), chain);
            return writer;
        };
        let next = view.epoch == chain.epoch && chain.seq.checked_add(1) == Some(view.seq);
        let restart = view.epoch > chain.epoch && view.seq == 1;
        let linked = view.prev == chain.last;
        let (epoch, seq, writer) = (chain.epoch, chain.seq, chain.writer);
        chain.epoch = view.epoch;
        chain.seq = view.seq;
        chain.last = hash;
        if !next && !restart {
            let what = format!(
                "writer {} goes from epoch {epoch}, seq {seq} to epoch {}, seq {}: records are missing",
                view.writer_id, view.epoch, view.seq
            );
            self.violation(index, &what);
        } else if !linked {
            let what = format!(
                "writer {} does not link to its previous record: records are missing or replaced",
                view.writer_id
            );
            self.violation(index, &what);
        }
        writer
    }

    fn violation(&mut self, index: u64, what: &str) {
        self.count += 1;
        if self.violations.len() < MAX_LISTED {
            self.violations.push(Violation { index, what: what.to_owned() });
        }
    }
}
