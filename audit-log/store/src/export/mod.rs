//! Records in forms that other programs read: JSON Lines, OCSF, Parquet.
//!
//! Purpose: whoever analyses the log gets it in their tools, with what is needed to come back to
//! the proof: the log, the index, the leaf hash and the exact stored bytes.
//! Invariants: records stream, one block of each log (and one row group) in memory at a time; the
//! stored bytes are passed on as they are. `docs/audit-export.md` describes each form.
//! Left out: proofs (`provost audit query --with-proofs`), sending (`forward`).

mod columns;
mod ocsf;
mod parquet_file;

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::Path,
};

use provost_audit_core::{LogId, VerifierKey};
use provost_audit_verify::KEY_FILE;

use crate::query::{Found, Query, QueryError, query};

pub use ocsf::{OCSF_VERSION, ocsf_event};

/// A record's phase as records write it.
pub(crate) fn phase_of(record: &provost_audit_core::Record<'_>) -> &'static str {
    columns::phase_word(record.phase)
}

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line: log, index, leaf hash, record.
    Jsonl,
    /// One OCSF event a line.
    Ocsf,
    /// An Apache Parquet file, a row each.
    Parquet,
}

/// Why an export ended.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The records.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The output.
    #[error("PV-AUDIT-EXPORT: the export cannot be written: {0}; check space and permissions, then export again")]
    Write(#[from] io::Error),
    /// The Parquet file.
    #[error("PV-AUDIT-EXPORT: the Parquet file cannot be written: {0}; check space and permissions, then export again")]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// Takes records one by one.
trait Sink {
    fn take(&mut self, found: &Found, origin: &str) -> Result<(), ExportError>;
    fn end(self: Box<Self>) -> Result<(), ExportError>;
}

/// Writes what `wanted` finds in `audit_dir` to `out`; gives the number of records. Blocking.
pub fn export(
    audit_dir: &Path,
    wanted: Query,
    format: ExportFormat,
    out: impl Write + Send + 'static,
) -> Result<u64, ExportError> {
    let records = query(audit_dir, wanted)?;
    let mut sink: Box<dyn Sink> = match format {
        ExportFormat::Jsonl => Box::new(Lines { out: io::BufWriter::new(out), line: jsonl_line }),
        ExportFormat::Ocsf => Box::new(Lines { out: io::BufWriter::new(out), line: ocsf::line }),
        ExportFormat::Parquet => Box::new(parquet_file::ParquetFile::create(out)?),
    };
    let mut origins = HashMap::new();
    let mut count = 0;
    for found in records {
        let found = found?;
        let origin = origins.entry(found.log.clone()).or_insert_with(|| origin_of(audit_dir, &found.log));
        sink.take(&found, origin)?;
        count += 1;
    }
    sink.end()?;
    Ok(count)
}

/// The origin of a log, by the key beside it; without it, the log's own name.
pub(crate) fn origin_of(audit_dir: &Path, log: &LogId) -> String {
    let key = fs::read_to_string(audit_dir.join(log.folder()).join(KEY_FILE)).ok();
    key.and_then(|text| VerifierKey::parse(&text).ok()).map_or_else(|| log.to_string(), |key| key.name)
}

/// A log as people name it: the tenant, or `cluster`.
pub(crate) fn log_name(log: &LogId) -> &str {
    if log.0.is_some() { log.tenant() } else { "cluster" }
}

struct Lines<W: Write> {
    out: io::BufWriter<W>,
    line: fn(&Found, &str) -> String,
}

impl<W: Write> Sink for Lines<W> {
    fn take(&mut self, found: &Found, origin: &str) -> Result<(), ExportError> {
        Ok(writeln!(self.out, "{}", (self.line)(found, origin))?)
    }

    fn end(mut self: Box<Self>) -> Result<(), ExportError> {
        Ok(self.out.flush()?)
    }
}

/// The record's bytes stand in the line as they are stored, so its leaf hash can be made again.
fn jsonl_line(found: &Found, _origin: &str) -> String {
    let Found { log, index, leaf_hash, leaf, .. } = found;
    format!("{{\"log\":\"{}\",\"index\":{index},\"leaf_hash\":\"{leaf_hash}\",\"record\":{leaf}}}", log_name(log))
}
