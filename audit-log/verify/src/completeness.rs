//! Rules across records: writers' chains, and one outcome for each intent.
//!
//! Takes the facts of each run of records in order. Invariant: memory grows with the number of
//! writers and of calls that are open at once, not with the log.

use std::{collections::HashMap, path::Path, sync::Arc};

use crate::{
    facts::{CallFact, Facts, Link, SECOND_INTENT, WriterRun, breach},
    report::Violation,
};
use provost_audit_core::Hash;

/// Violations that are listed; more are counted.
const MAX_LISTED: usize = 100;
/// Intents that may be open at once; a log that goes beyond is reported, not followed. A node has
/// some thousands; about 64 bytes each.
const MAX_OPEN: usize = 1_000_000;
/// Writers that one log may have.
const MAX_WRITERS: usize = 65_536;

/// What one log has shown so far.
pub(crate) struct Completeness {
    /// Whether records before the first one read exist.
    partial: bool,
    writers: HashMap<String, Chain>,
    open: HashMap<u128, OpenIntent>,
    /// Files that open intents stand in.
    files: Vec<Arc<Path>>,
    pub violations: Findings,
    pub back_dated: Findings,
}

/// Records that something is said about: the first are listed, all are counted.
#[derive(Default)]
pub(crate) struct Findings {
    pub listed: Vec<Violation>,
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
    offset: u64,
    file: u32,
    writer: u32,
    epoch: u64,
}

/// Where the records of a run stand.
pub(crate) struct Where<'a> {
    pub file: &'a Arc<Path>,
    /// Index of the run's first record.
    pub first: u64,
    /// Offset of each record, or one for all of them.
    pub offsets: &'a [u64],
}

impl Where<'_> {
    pub(crate) fn offset(&self, index: u64) -> u64 {
        let n = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.offsets.get(n).or(self.offsets.first()).copied().unwrap_or_default()
    }
}

impl Findings {
    fn add(&mut self, index: u64, file: &Path, offset: u64, what: String) {
        self.count += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Violation { index, file: file.to_owned(), offset, what });
        }
    }
}

impl Completeness {
    pub(crate) fn new(partial: bool) -> Self {
        Self {
            partial,
            writers: HashMap::new(),
            open: HashMap::new(),
            files: Vec::new(),
            violations: Findings::default(),
            back_dated: Findings::default(),
        }
    }

    /// Takes the facts of the next run.
    pub(crate) fn merge(&mut self, facts: Facts, place: &Where<'_>) {
        let mut found = facts.violations;
        let writers: Vec<u32> = facts.writers.into_iter().map(|run| self.follow(run, &mut found)).collect();
        if self.files.last() != Some(place.file) && !facts.calls.is_empty() {
            self.files.push(place.file.clone());
        }
        for call in facts.calls {
            self.follow_call(call, &writers, place, &mut found);
        }
        found.sort();
        for (index, what) in found {
            self.violations.add(index, place.file, place.offset(index), what);
        }
        for index in facts.back_dated {
            let what = "it is dated before a checkpoint that was signed before it was recorded".to_owned();
            self.back_dated.add(index, place.file, place.offset(index), what);
        }
    }

    fn follow_call(&mut self, call: CallFact, writers: &[u32], place: &Where<'_>, found: &mut Vec<(u64, String)>) {
        match call {
            CallFact::Whole { call, intent } => {
                if !self.open.is_empty() && self.open.remove(&call).is_some() {
                    found.push((intent, SECOND_INTENT.to_owned()));
                }
            }
            CallFact::Began { intent, .. } if self.open.len() >= MAX_OPEN => {
                found.push((intent, "too many calls are open at once to be followed".to_owned()));
            }
            CallFact::Began { call, intent, writer, epoch } => {
                let writer = writers.get(writer).copied().unwrap_or(u32::MAX);
                let file = self.files.len().saturating_sub(1) as u32;
                let open = OpenIntent { index: intent, offset: place.offset(intent), file, writer, epoch };
                if self.open.insert(call, open).is_some() {
                    found.push((intent, SECOND_INTENT.to_owned()));
                }
            }
            CallFact::Ended { call, outcome } => {
                if self.open.remove(&call).is_none() && !self.partial {
                    found.push((outcome, "an outcome without intent, or a second outcome".to_owned()));
                }
            }
        }
    }

    /// The writer's number.
    fn follow(&mut self, run: WriterRun, found: &mut Vec<(u64, String)>) -> u32 {
        let known = self.writers.len();
        let Link { epoch, seq, hash, .. } = run.last;
        let Some(chain) = self.writers.get_mut(&run.id) else {
            if known >= MAX_WRITERS {
                found.push((run.first.index, "too many writers to be followed".to_owned()));
                return u32::MAX;
            }
            let first = run.first.prev == Hash::ZERO && run.first.seq == 1;
            if !first && !self.partial {
                let what = "the writer's first record here says that others precede it".to_owned();
                found.push((run.first.index, what));
            }
            let writer = known as u32;
            self.writers.insert(run.id, Chain { epoch, seq, last: hash, writer });
            return writer;
        };
        if let Some(what) = breach(&run.id, (chain.epoch, chain.seq, chain.last), &run.first) {
            found.push((run.first.index, what));
        }
        *chain = Chain { epoch, seq, last: hash, writer: chain.writer };
        chain.writer
    }

    /// Intents still open; those of an epoch that its writer has left are violations.
    pub(crate) fn finish(&mut self) -> u64 {
        let epochs: HashMap<u32, u64> = self.writers.values().map(|chain| (chain.writer, chain.epoch)).collect();
        let left = |i: &&OpenIntent| epochs.get(&i.writer).is_some_and(|now| *now > i.epoch);
        let mut lost: Vec<&OpenIntent> = self.open.values().filter(left).collect();
        lost.sort_unstable_by_key(|intent| intent.index);
        let open = self.open.len() - lost.len();
        for intent in lost {
            let what = "an intent without outcome, though its writer started again".to_owned();
            let file = self.files.get(intent.file as usize).map_or(Path::new(""), AsRef::as_ref);
            self.violations.add(intent.index, file, intent.offset, what);
        }
        open as u64
    }
}
