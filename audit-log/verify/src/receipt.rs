//! A caller's receipt against the log: is the record that was promised there?
//!
//! A caller got log, index and leaf hash with its result. A log that drops or replaces the record
//! can still be whole within itself; only the receipt shows it.

use std::path::{Path, PathBuf};

use provost_audit_core::{BLOCK_RECORDS, Hash, LogId, SEGMENT_LEAVES, leaf_hash};
use serde::Serialize;

use crate::{layout::LogLayout, read::LogReader, report::LogReport, walk::ReadFault};

/// What a caller holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The log's origin.
    pub log: String,
    /// The record's index.
    pub index: u64,
    /// The record's leaf hash.
    pub leaf_hash: Hash,
}

/// What became of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptReport {
    /// The log's origin.
    pub log: String,
    /// The record's index.
    pub index: u64,
    /// The leaf hash that was promised.
    pub expected: Hash,
    /// The leaf hash that is there; `None`: no record is.
    pub actual: Option<Hash>,
    /// The file that holds the record, or should.
    pub file: PathBuf,
    /// Byte offset of the part that holds it.
    pub offset: u64,
    /// Whether a checkpoint that holds covers it.
    pub signed: bool,
    /// Whether the record is the promised one.
    pub holds: bool,
    /// In words.
    pub text: String,
}

/// Looks the receipt up in the directory (or the folder of one log) whose logs were verified.
pub(crate) fn check(path: &Path, single: Option<&LogId>, receipt: &Receipt, reports: &[LogReport]) -> ReceiptReport {
    let Receipt { log, index, leaf_hash } = receipt.clone();
    let dir = match (single, LogId::from_origin(&log)) {
        (Some(_), _) => path.to_owned(),
        (None, Some(id)) => path.join(id.folder()),
        (None, None) => path.to_owned(),
    };
    let mut report = ReceiptReport {
        log,
        index,
        expected: leaf_hash,
        actual: None,
        file: dir.clone(),
        offset: 0,
        signed: false,
        holds: false,
        text: String::new(),
    };
    let Some(of_log) = reports.iter().find(|of_log| of_log.origin == report.log) else {
        report.text = format!("the log {} is not here", report.log);
        return report;
    };
    report.signed = index < of_log.signed;
    match find(LogLayout::new(dir), index) {
        Ok(Some((actual, file, offset))) => {
            report.actual = Some(actual);
            (report.file, report.offset) = (file, offset);
            report.holds = actual == leaf_hash;
            report.text = match (report.holds, report.signed) {
                (true, true) => "the record is there, and signed".to_owned(),
                (true, false) => "the record is there; no checkpoint covers it yet".to_owned(),
                (false, _) => "another record stands at this place: the promised one was replaced".to_owned(),
            };
        }
        Ok(None) => {
            let there = of_log.records;
            report.text = format!("the log ends after {there} records: the promised one was removed");
        }
        Err(fault) => {
            (report.file, report.offset) = (fault.file, fault.offset);
            report.text = format!("the record cannot be read: {}", fault.what);
        }
    }
    report
}

/// Leaf hash, file and offset of record `index`, from its own bytes.
fn find(layout: LogLayout, index: u64) -> Result<Option<(Hash, PathBuf, u64)>, ReadFault> {
    let block = index - index % BLOCK_RECORDS;
    let mut reader = LogReader::from_segment(layout, index - index % SEGMENT_LEAVES)
        .with_filter(Box::new(move |header| header.first_index == block));
    while let Some(chunk) = reader.next()? {
        for (n, (at, leaf)) in chunk.iter().enumerate() {
            if at == index {
                return Ok(Some((leaf_hash(leaf), chunk.file.clone(), chunk.offset(n))));
            }
        }
    }
    Ok(None)
}
