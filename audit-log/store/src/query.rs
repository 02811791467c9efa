//! Reads records back: from the files, of a live log or of a copy.
//!
//! A reader sees a consistent prefix: whole records in order, up to some moment during the read.
//! Nothing is proven here; `show` and [`crate::Prover`] hand out the proof that a verifier checks.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use provost_audit_core::{
    BLOCK_RECORDS, Hash, IndexField, LogId, Record, RecordError, SEGMENT_LEAVES, index_key, leaf_hash, status_word,
};
use provost_audit_verify::{LogLayout, LogReader, ReadFault, list_logs};
use provost_types::{CallId, CallStatus};

use crate::{
    merge::{Merge, newest},
    prover::Prover,
    scan::{LogScan, QueryStats},
};

/// Which records are wanted; every given condition must hold.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only this log; otherwise all, merged by time.
    pub log: Option<LogId>,
    /// The principal's name.
    pub principal: Option<String>,
    /// Tool, prompt, resource or model as the caller named it.
    pub tool: Option<String>,
    /// How the call ended.
    pub status: Option<CallStatus>,
    /// The workflow or conversation.
    pub workflow: Option<String>,
    /// The call.
    pub call: Option<CallId>,
    /// What happened, for records that are no calls.
    pub event: Option<String>,
    /// Not before, nanoseconds since the Unix epoch.
    pub since_ns: Option<u64>,
    /// Before, nanoseconds since the Unix epoch.
    pub until_ns: Option<u64>,
    /// Only the newest so many (still given oldest first).
    pub limit: Option<usize>,
    /// Read every block, whatever the indexes say.
    pub no_index: bool,
}

/// A record and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The log.
    pub log: LogId,
    /// Its index in that log.
    pub index: u64,
    /// RFC 6962 leaf hash of the stored bytes.
    pub leaf_hash: Hash,
    /// The record; without values that are not of the kind that their key says.
    pub record: Record<'static>,
    /// The stored bytes: canonical JSON.
    pub leaf: String,
}

/// A record with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The record.
    pub found: Found,
    /// The latest checkpoint, a C2SP note; `None` when the record is not covered by one yet.
    pub checkpoint: Option<String>,
    /// RFC 6962 audit path from the leaf to the checkpoint's root.
    pub proof: Vec<Hash>,
}

/// Why a query ended.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A part of the log is damaged.
    #[error("PV-AUDIT-READ: {0}; run `provost audit verify` on this directory")]
    Read(#[from] ReadFault),
    /// A record cannot be understood.
    #[error("PV-AUDIT-READ: record {index} of {log}: {why}; run `provost audit verify` on this directory")]
    Record {
        /// The log.
        log: LogId,
        /// Its index.
        index: u64,
        /// The cause.
        why: RecordError,
    },
    /// A file cannot be read.
    #[error("PV-AUDIT-IO: {path}: {source}; check that this is an audit directory you may read")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No such record.
    #[error("PV-AUDIT-NO-RECORD: the log of {log} has {size} records; index {index} is not one of them")]
    NoRecord {
        /// The log.
        log: LogId,
        /// What was asked for.
        index: u64,
        /// Records there.
        size: u64,
    },
    /// The record was there and is not any more.
    #[error("PV-AUDIT-PRUNED: record {index} of {log} was pruned; the first that is kept is {kept}")]
    Pruned {
        /// The log.
        log: LogId,
        /// What was asked for.
        index: u64,
        /// The first record that is kept.
        kept: u64,
    },
    /// The proof could not be made.
    #[error("PV-AUDIT-PROOF: {0}; run `provost audit verify` on this directory")]
    Proof(String),
}

impl Query {
    /// Whether records of a block with these times can be wanted.
    pub(crate) fn may_span(&self, min_ns: u64, max_ns: u64) -> bool {
        self.since_ns.is_none_or(|since| max_ns >= since) && self.until_ns.is_none_or(|until| min_ns < until)
    }

    /// Whether a record meets every condition.
    pub fn wants(&self, record: &Record<'_>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|w| found == Some(w));
        self.may_span(record.time_ns, record.time_ns)
            && is(&self.principal, record.principal.as_deref())
            && is(&self.tool, record.called())
            && is(&self.workflow, record.workflow.as_deref())
            && is(&self.event, record.event.as_deref())
            && self.call.is_none_or(|call| record.call_id == call)
            && self.status.is_none_or(|s| record.status == Some(s))
    }

    /// The index keys of the conditions: a block that lacks one holds no wanted record.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u64> {
        let call = self.call.map(|call| call.to_string());
        let values = [
            (IndexField::Principal, self.principal.as_deref()),
            (IndexField::Called, self.tool.as_deref()),
            (IndexField::Status, self.status.map(status_word)),
            (IndexField::Workflow, self.workflow.as_deref()),
            (IndexField::Call, call.as_deref()),
            (IndexField::Event, self.event.as_deref()),
        ];
        let keys = values.map(|(field, value)| value.map(|value| index_key(field, value)));
        keys.into_iter().flatten()
    }
}

/// What a query found, oldest first.
pub struct Results {
    records: Box<dyn Iterator<Item = Result<Found, QueryError>> + Send>,
    stats: Arc<QueryStats>,
}

impl Results {
    /// What was read up to now.
    pub fn stats(&self) -> Arc<QueryStats> {
        self.stats.clone()
    }
}

impl Iterator for Results {
    type Item = Result<Found, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.next()
    }
}

/// Records of `audit_dir` that `query` wants, oldest first. Blocking: reads files as it goes, one
/// block of each log in memory; with a limit, the limit's records as well.
pub fn query(audit_dir: &Path, query: Query) -> Result<Results, QueryError> {
    let stats = Arc::<QueryStats>::default();
    let logs = logs_of(audit_dir, &query)?;
    let query = Arc::new(query);
    let records: Box<dyn Iterator<Item = _> + Send> = match query.limit {
        Some(limit) => {
            let mut found = std::collections::VecDeque::new();
            for (log, layout) in logs {
                newest(&mut found, limit, layout, log, &query, &stats)?;
            }
            Box::new(found.into_iter().map(Ok))
        }
        None => {
            let scan = |(log, layout)| LogScan::new(layout, log, query.clone(), 0, stats.clone());
            Box::new(Merge::of(logs.into_iter().map(scan).collect::<Result<_, _>>()?))
        }
    };
    Ok(Results { records, stats })
}

fn logs_of(audit_dir: &Path, query: &Query) -> Result<Vec<(LogId, LogLayout)>, QueryError> {
    let io = |source| QueryError::Io { path: audit_dir.to_owned(), source };
    let logs = match &query.log {
        // Nothing was ever recorded there: nothing is found.
        Some(log) if !audit_dir.join(log.folder()).exists() => Vec::new(),
        Some(log) => vec![log.clone()],
        None => list_logs(audit_dir).map_err(io)?,
    };
    let with_layout = |log: LogId| {
        let layout = LogLayout::new(audit_dir.join(log.folder()));
        if !layout.exists() {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no log");
            return Err(QueryError::Io { path: layout.dir, source });
        }
        Ok((log, layout))
    };
    logs.into_iter().map(with_layout).collect()
}

/// Records of one log from index `from` on, whatever they are: for those who follow it.
pub(crate) fn records_from(
    audit_dir: &Path,
    log: &LogId,
    from: u64,
) -> Result<impl Iterator<Item = Result<Found, QueryError>> + Send + use<>, QueryError> {
    let layout = LogLayout::new(audit_dir.join(log.folder()));
    Ok(LogScan::new(layout, log.clone(), Arc::default(), from, Arc::default())?)
}

/// Records of one log that `query` wants, from index `from` on: for those who read it in parts. A limit is
/// theirs to keep. Blocking: reads files as it goes.
pub fn query_from(
    audit_dir: &Path,
    log: &LogId,
    query: Query,
    from: u64,
) -> Result<impl Iterator<Item = Result<Found, QueryError>> + Send + use<>, QueryError> {
    let layout = LogLayout::new(audit_dir.join(log.folder()));
    Ok(LogScan::new(layout, log.clone(), Arc::new(query), from, Arc::default())?)
}

/// Record `index` of a log, with the proof that the latest checkpoint covers it.
pub fn show(audit_dir: &Path, log: &LogId, index: u64) -> Result<Shown, QueryError> {
    let layout = LogLayout::new(audit_dir.join(log.folder()));
    let io = |source| QueryError::Io { path: layout.segments(), source };
    let kept = layout.list_pruned().map_err(io)?.last().map_or(0, |last| last + SEGMENT_LEAVES);
    if index < kept {
        return Err(QueryError::Pruned { log: log.clone(), index, kept });
    }
    let block = index - index % BLOCK_RECORDS;
    let mut reader = LogReader::from_segment(layout.clone(), index - index % SEGMENT_LEAVES)
        .with_filter(Box::new(move |header| header.first_index == block));
    let mut found = None;
    while found.is_none() {
        let Some(chunk) = reader.next()? else { break };
        let hit = chunk.iter().find(|(at, _)| *at == index);
        found = hit.map(|(at, leaf)| decode(log, at, leaf)).transpose()?;
    }
    let Some(found) = found else {
        // A reader that began behind the end knows nothing of it: count from the first that is kept.
        let mut whole = LogReader::from_segment(layout, kept).with_filter(Box::new(|_| false));
        while whole.next()?.is_some() {}
        return Err(QueryError::NoRecord { log: log.clone(), index, size: whole.position() });
    };
    let Some(prover) = Prover::open(audit_dir, log)? else {
        return Ok(Shown { found, checkpoint: None, proof: Vec::new() });
    };
    let proof = prover.inclusion(index)?;
    let checkpoint = proof.is_some().then(|| prover.checkpoint().to_owned());
    Ok(Shown { found, checkpoint, proof: proof.unwrap_or_default() })
}

pub(crate) fn decode(log: &LogId, index: u64, leaf: &[u8]) -> Result<Found, QueryError> {
    let wrong = |why| QueryError::Record { log: log.clone(), index, why };
    let (record, left_out) = Record::decode_what_fits(leaf).map_err(wrong)?;
    if left_out {
        tracing::warn!(%log, index, "values of the record are not of their keys' kinds; its bytes hold them");
    }
    Ok(Found {
        log: log.clone(),
        index,
        leaf_hash: leaf_hash(leaf),
        record,
        leaf: String::from_utf8_lossy(leaf).into_owned(),
    })
}
