//! What the cluster's log says of the tenants' logs.
//!
//! The cluster's log holds, as records, each tenant's signed checkpoints. Only the cluster's log
//! needs an anchor from outside: a tenant's log that was deleted, cut off, rolled back or replaced
//! contradicts a record of it, and one that agrees with a record below the anchor is anchored by it.
//! Each record must hold, so that none that is added later takes anything back. Their order says
//! nothing: two leaders that follow each other may note a smaller size behind a larger one.
//! Left out: whether the cluster's log itself holds; its own report says that.

use std::{collections::BTreeMap, path::Path};

use memchr::memmem;
use provost_audit_core::{Hash, LogId, RecordReader};
use provost_types::Phase;

use crate::{
    layout::LogLayout,
    noted::{Broken, Noted, NotedRoots, TENANT_CHECKPOINT},
    read::LogReader,
    report::{Failure, LogReport, State},
};

/// By origin, in the order of the cluster's log.
#[derive(Debug, Default)]
pub(crate) struct TenantHeads(BTreeMap<String, Vec<Noted>>);

impl TenantHeads {
    /// Takes the next record of the cluster's log.
    pub(crate) fn add(&mut self, origin: String, noted: Noted) {
        let all = self.0.entry(origin).or_default();
        // Each log is noted once more when another leader begins: that says nothing new.
        if all.last().is_none_or(|last| (last.size, last.root) != (noted.size, noted.root)) {
            all.push(noted);
        }
    }

    /// Of this log.
    pub(crate) fn of(&self, origin: &str) -> &[Noted] {
        self.0.get(origin).map_or(&[], Vec::as_slice)
    }

    /// The logs that are noted, with their origins.
    pub(crate) fn logs(&self) -> impl Iterator<Item = (LogId, &String)> {
        self.0.keys().filter_map(|origin| Some((LogId::from_origin(origin)?, origin)))
    }

    /// Of a cluster's log that could not be judged, for want of its key.
    pub(crate) fn read(layout: LogLayout) -> Self {
        let mut heads = Self::default();
        let (mut reader, mut records) = (LogReader::new(layout), RecordReader::default());
        // Where it cannot be read any further its own report says so.
        while let Ok(Some(chunk)) = reader.next() {
            for (index, leaf) in chunk.iter() {
                if memmem::find(leaf, br#""event":"checkpoint""#).is_none() {
                    continue;
                }
                let view = records.read(leaf).ok();
                let is_one = |event, phase| phase == Phase::Event && event == Some(TENANT_CHECKPOINT.as_bytes());
                if view.is_some_and(|view| is_one(view.event, view.phase))
                    && let Some((origin, noted)) = Noted::read(index, leaf)
                {
                    heads.add(origin, noted);
                }
            }
        }
        heads
    }
}

/// Judges a log whose records were read: does each note of it hold, and does one of them anchor it?
/// `anchored` is the anchor of the cluster's log.
pub(crate) fn judge(report: &mut LogReport, dir: &Path, notes: &NotedRoots, anchored: Option<u64>) {
    // Bodies that are missing are no excuse: the records are all there to be compared.
    if matches!(report.integrity.state, State::Failed | State::Incomplete) {
        return;
    }
    if let Some(broken) = notes.finish() {
        let failure = failure(report, dir, broken);
        report.integrity.state = State::Failed;
        report.integrity.text.clone_from(&failure.attack);
        report.completeness.state = State::Failed;
        report.completeness.text = "records that were signed are not there".to_owned();
        // A checkpoint that was refused is the earlier evidence.
        report.failure.get_or_insert(failure);
        return;
    }
    let below = anchored.and_then(|anchored| notes.largest_below(anchored));
    if let Some(below) = below.filter(|below| report.anchored.is_none_or(|anchored| anchored < below.size)) {
        anchor(report, below);
    }
}

fn failure(report: &LogReport, dir: &Path, Broken { note, actual }: Broken) -> Failure {
    let Noted { record, size, root } = note;
    let (index, attack) = if size > report.records {
        let there = report.records;
        let attack = format!(
            "record {record} of the cluster's log notes a checkpoint of {size} records and {there} are there: the \
             end was cut off, or storage was rolled back"
        );
        (there, attack)
    } else {
        let attack = format!(
            "the first {size} records are not those whose checkpoint record {record} of the cluster's log notes: \
             the history was rewritten, or the whole log replaced"
        );
        (first_difference(report, size), attack)
    };
    let expected: Option<Hash> = Some(root);
    let (file, last_good_checkpoint) = (dir.to_owned(), report.signed);
    Failure { attack, index, file, offset: 0, expected, actual, last_good_checkpoint }
}

/// Where a whole-log difference may begin: after the last checkpoint that is smaller.
fn first_difference(report: &LogReport, size: u64) -> u64 {
    if report.signed < size { report.signed } else { 0 }
}

/// The log extends a checkpoint that the anchored part of the cluster's log notes.
fn anchor(report: &mut LogReport, noted: Noted) {
    let Noted { record, size, .. } = noted;
    report.anchored = Some(size);
    let by = format!("the anchored record {record} of the cluster's log notes {size} of them");
    let records = report.records;
    for (verdict, text) in [
        (&mut report.integrity, format!("chain and tree of {records} records hold; {by}")),
        (&mut report.authenticity, format!("{} records signed; {by}", report.signed)),
        (&mut report.completeness, format!("no gap in any writer's chain, one outcome for each intent; {by}")),
    ] {
        if verdict.state == State::Consistent {
            verdict.state = State::Proven;
            verdict.text = text;
        }
    }
    if report.retention.state == State::Consistent {
        report.retention.state = State::Proven;
        report.retention.text = format!("{}; {by}", report.retention.text);
    }
}
