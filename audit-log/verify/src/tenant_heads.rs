//! What the cluster's log says of the tenants' logs.
//!
//! The cluster's log holds, as records, each tenant's signed checkpoints. Only the cluster's log
//! needs an anchor from outside: a tenant's log that was deleted, cut off, rolled back or replaced
//! contradicts the newest record of it, and one that agrees with a record below the anchor is
//! anchored by it.
//! Left out: whether the cluster's log itself holds; its own report says that.

use std::{collections::BTreeMap, path::Path};

use memchr::memmem;
use provost_audit_core::{Frontier, Hash, LogId, Record, leaf_hash};
use provost_types::Phase;

use crate::{
    layout::{LogLayout, list_logs},
    leaf_hashes::LeafHashes,
    read::LogReader,
    report::{Failure, LogReport, State},
};

/// The event's name in the cluster's log.
pub const TENANT_CHECKPOINT: &str = "checkpoint";

/// One record of a tenant's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    /// The record's index in the cluster's log.
    record: u64,
    size: u64,
    root: Hash,
}

/// By origin: the newest record, and the newest that the cluster's anchor covers.
#[derive(Debug, Default)]
pub(crate) struct TenantHeads(BTreeMap<String, (Noted, Option<Noted>)>);

impl TenantHeads {
    /// Looks at one record of the cluster's log.
    pub(crate) fn observe(&mut self, index: u64, leaf: &[u8], anchored: Option<u64>) {
        if memmem::find(leaf, br#""event":"checkpoint""#).is_none() {
            return;
        }
        let Ok(record) = Record::decode(leaf) else { return };
        let Some((origin, size, root)) = noted(&record) else { return };
        let noted = Noted { record: index, size, root };
        let covered = anchored.is_some_and(|anchored| index < anchored).then_some(noted);
        let (newest, below) = self.0.entry(origin).or_insert((noted, covered));
        *newest = noted;
        *below = covered.or(*below);
    }

    fn read(cluster: &Path, anchored: Option<u64>) -> Self {
        let mut heads = Self::default();
        let mut reader = LogReader::new(LogLayout::new(cluster));
        // Where it cannot be read any further its own report says so.
        while let Ok(Some(chunk)) = reader.next() {
            for (index, leaf) in chunk.iter() {
                heads.observe(index, leaf, anchored);
            }
        }
        heads
    }
}

/// Origin, size and root that a record of the event names.
fn noted(record: &Record<'_>) -> Option<(String, u64, Hash)> {
    let is_one = record.phase == Phase::Event && record.event.as_deref() == Some(TENANT_CHECKPOINT);
    let origin = record.event_objects.first().filter(|_| is_one)?;
    let (size, root) = record.event_detail.as_deref()?.split_once(' ')?;
    Some((origin.to_string(), size.parse().ok()?, Hash::parse(root.as_bytes()).ok()?))
}

/// Compares every tenant's log of `dir` with the cluster's log. `only` limits it to one log.
pub(crate) fn compare(dir: &Path, only: Option<&LogId>, reports: &mut [LogReport], missing: &mut Vec<String>) {
    let here = list_logs(dir).unwrap_or_default();
    if !here.contains(&LogId::CLUSTER) {
        return;
    }
    let is_cluster = |report: &&LogReport| LogId::from_origin(&report.origin) == Some(LogId::CLUSTER);
    let cluster = reports.iter().find(is_cluster);
    // A changed cluster log says nothing about others.
    if cluster.is_some_and(|report| report.integrity.state == State::Failed) {
        return;
    }
    let anchored = cluster.and_then(|report| report.anchored);
    let heads = TenantHeads::read(&dir.join(LogId::CLUSTER.folder()), anchored);
    for (origin, (newest, below)) in heads.0 {
        let Some(log) = LogId::from_origin(&origin).filter(|log| *log != LogId::CLUSTER) else { continue };
        if only.is_some_and(|only| *only != log) {
            continue;
        }
        let layout = LogLayout::new(dir.join(log.folder()));
        match reports.iter_mut().find(|report| report.origin == origin) {
            Some(report) => judge(report, layout, newest, below),
            None if !here.contains(&log) && !missing.contains(&origin) => missing.push(origin),
            None => {}
        }
    }
}

fn judge(report: &mut LogReport, layout: LogLayout, newest: Noted, below: Option<Noted>) {
    // Bodies that are missing are no excuse: the records are all there to be compared.
    if matches!(report.integrity.state, State::Failed | State::Incomplete) {
        return;
    }
    let dir = layout.dir.clone();
    let Noted { record, size, root } = newest;
    let at = |index, expected, actual, attack| Failure {
        attack,
        index,
        file: dir.clone(),
        offset: 0,
        expected,
        actual,
        last_good_checkpoint: report.signed,
    };
    let failure = if size > report.records {
        let there = report.records;
        let attack = format!(
            "record {record} of the cluster's log notes a checkpoint of {size} records and {there} are there: the \
             end was cut off, or storage was rolled back"
        );
        Some(at(there, Some(root), None, attack))
    } else {
        let actual = root_of(&layout, size);
        (actual != Some(root)).then(|| {
            let attack = format!(
                "the first {size} records are not those whose checkpoint record {record} of the cluster's log notes: \
                 the history was rewritten, or the whole log replaced"
            );
            at(first_difference(report, size), Some(root), actual, attack)
        })
    };
    if let Some(failure) = failure {
        report.integrity.state = State::Failed;
        report.integrity.text.clone_from(&failure.attack);
        report.completeness.state = State::Failed;
        report.completeness.text = "records that were signed are not there".to_owned();
        // A checkpoint that was refused is the earlier evidence.
        report.failure.get_or_insert(failure);
        return;
    }
    let Some(below) = below.filter(|below| report.anchored.is_none_or(|anchored| anchored < below.size)) else {
        return;
    };
    if root_of(&layout, below.size) == Some(below.root) {
        anchor(report, below);
    }
}

/// The root of the first `size` records; by the records themselves where stored leaf hashes are missing.
fn root_of(layout: &LogLayout, size: u64) -> Option<Hash> {
    if let Ok(root) = LeafHashes::open(layout.clone()).and_then(|hashes| hashes.root(0..size)) {
        return Some(root);
    }
    let (mut tree, mut reader) = (Frontier::default(), LogReader::new(layout.clone()));
    while let Ok(Some(chunk)) = reader.next() {
        for (_, leaf) in chunk.iter() {
            tree.append(leaf_hash(leaf));
            if tree.size() == size {
                return Some(tree.root());
            }
        }
    }
    None
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
        (&mut report.retention, format!("all {records} records since the first are present; {by}")),
    ] {
        if verdict.state == State::Consistent {
            verdict.state = State::Proven;
            verdict.text = text;
        }
    }
}
