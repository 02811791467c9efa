//! Reads records back: from the files, of a live log or of a copy.
//!
//! A reader sees a consistent prefix: whole records in order, up to some moment during the read.
//! Nothing is proven here; `show` hands out the proof that a verifier checks.

use std::{
    collections::VecDeque,
    fs, io,
    iter::Peekable,
    path::{Path, PathBuf},
};

use provost_audit_core::{BLOCK_RECORDS, Checkpoint, Hash, LogId, Record, RecordError, SEGMENT_LEAVES, leaf_hash};
use provost_audit_verify::{CHECKPOINT_FILE, LeafHashes, LogLayout, LogReader, ReadFault, list_logs};
use provost_types::CallStatus;

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
    /// Not before, nanoseconds since the Unix epoch.
    pub since_ns: Option<u64>,
    /// Before, nanoseconds since the Unix epoch.
    pub until_ns: Option<u64>,
    /// Only the newest so many (still given oldest first).
    pub limit: Option<usize>,
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
    /// The record.
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
    /// The proof could not be made.
    #[error("PV-AUDIT-PROOF: {0}; run `provost audit verify` on this directory")]
    Proof(String),
}

impl Query {
    fn in_time(&self, time_ns: u64) -> bool {
        self.since_ns.is_none_or(|since| time_ns >= since) && self.until_ns.is_none_or(|until| time_ns < until)
    }

    fn wants(&self, record: &Record<'_>) -> bool {
        self.in_time(record.time_ns)
            && self.principal.as_deref().is_none_or(|p| record.principal.as_deref() == Some(p))
            && self.tool.as_deref().is_none_or(|t| record.called() == Some(t))
            && self.status.is_none_or(|s| record.status == Some(s))
    }
}

/// Records of `audit_dir` that `query` wants, oldest first. Blocking: reads files as it goes.
pub fn query(
    audit_dir: &Path,
    query: Query,
) -> Result<Box<dyn Iterator<Item = Result<Found, QueryError>> + Send>, QueryError> {
    let io = |source| QueryError::Io { path: audit_dir.to_owned(), source };
    let logs = match &query.log {
        Some(log) => vec![log.clone()],
        None => list_logs(audit_dir).map_err(io)?,
    };
    let mut streams = Vec::new();
    for log in logs {
        let layout = LogLayout::new(audit_dir.join(log.folder()));
        if !layout.exists() {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no log");
            return Err(QueryError::Io { path: layout.dir, source });
        }
        streams.push(LogStream::new(layout, log, query.clone()).peekable());
    }
    let merged = Merge { streams };
    let Some(limit) = query.limit else { return Ok(Box::new(merged)) };
    let mut newest = VecDeque::with_capacity(limit.min(1024));
    for found in merged {
        let found = found?;
        newest.push_back(found);
        if newest.len() > limit {
            newest.pop_front();
        }
    }
    Ok(Box::new(newest.into_iter().map(Ok)))
}

/// Record `index` of a log, with the proof that the latest checkpoint covers it.
pub fn show(audit_dir: &Path, log: &LogId, index: u64) -> Result<Shown, QueryError> {
    let layout = LogLayout::new(audit_dir.join(log.folder()));
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
        // A reader that began behind the end knows nothing of it: count from the start.
        let mut whole = LogReader::new(layout).with_filter(Box::new(|_| false));
        while whole.next()?.is_some() {}
        return Err(QueryError::NoRecord { log: log.clone(), index, size: whole.position() });
    };
    let path = layout.dir.join(CHECKPOINT_FILE);
    let note = match fs::read_to_string(&path) {
        Ok(note) => note,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(QueryError::Io { path, source }),
    };
    let covered = Checkpoint::parse_unchecked(&note).ok().filter(|c| c.size > index);
    let Some(checkpoint) = covered else {
        return Ok(Shown { found, checkpoint: None, proof: Vec::new() });
    };
    let proof = LeafHashes::open(layout)
        .and_then(|hashes| hashes.inclusion(index, checkpoint.size))
        .map_err(|e| QueryError::Proof(e.to_string()))?;
    Ok(Shown { found, checkpoint: Some(note), proof })
}

fn decode(log: &LogId, index: u64, leaf: &[u8]) -> Result<Found, QueryError> {
    let wrong = |why| QueryError::Record { log: log.clone(), index, why };
    let record = Record::decode(leaf).map_err(wrong)?;
    Ok(Found {
        log: log.clone(),
        index,
        leaf_hash: leaf_hash(leaf),
        record,
        leaf: String::from_utf8_lossy(leaf).into_owned(),
    })
}

/// The wanted records of one log.
struct LogStream {
    reader: LogReader,
    log: LogId,
    query: Query,
    ready: VecDeque<Found>,
    ended: bool,
}

impl LogStream {
    fn new(layout: LogLayout, log: LogId, query: Query) -> Self {
        let bounds = query.clone();
        let reader = LogReader::new(layout).with_filter(Box::new(move |header| {
            bounds.since_ns.is_none_or(|since| header.max_time_ns >= since)
                && bounds.until_ns.is_none_or(|until| header.min_time_ns < until)
        }));
        Self { reader, log, query, ready: VecDeque::new(), ended: false }
    }

    fn fill(&mut self) -> Result<bool, QueryError> {
        let Some(chunk) = self.reader.next()? else { return Ok(false) };
        for (index, leaf) in chunk.iter() {
            let found = decode(&self.log, index, leaf)?;
            if self.query.wants(&found.record) {
                self.ready.push_back(found);
            }
        }
        Ok(true)
    }
}

impl Iterator for LogStream {
    type Item = Result<Found, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Some(Ok(found));
            }
            if self.ended {
                return None;
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            }
        }
    }
}

/// Several logs as one sequence by time; within a log the order is the log's.
struct Merge {
    streams: Vec<Peekable<LogStream>>,
}

impl Iterator for Merge {
    type Item = Result<Found, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut first: Option<(u64, usize)> = None;
        for (n, stream) in self.streams.iter_mut().enumerate() {
            let time = match stream.peek() {
                None => continue,
                // An error goes out at once.
                Some(Err(_)) => 0,
                Some(Ok(found)) => found.record.time_ns,
            };
            if first.is_none_or(|(best, _)| time < best) {
                first = Some((time, n));
            }
        }
        let (_, n) = first?;
        self.streams.get_mut(n)?.next()
    }
}
