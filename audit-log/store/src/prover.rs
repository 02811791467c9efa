//! Inclusion proofs for many records of one log, against one checkpoint.

use std::{fs, io, path::Path};

use provost_audit_core::{Checkpoint, Hash, LogId};
use provost_audit_verify::{CHECKPOINT_FILE, LeafHashes, LogLayout};

use crate::query::QueryError;

/// Makes inclusion proofs against one log's latest checkpoint.
pub struct Prover {
    hashes: LeafHashes,
    note: String,
    size: u64,
}

impl Prover {
    /// Of `log` as it is now; `None` when it has no checkpoint yet.
    pub fn open(audit_dir: &Path, log: &LogId) -> Result<Option<Self>, QueryError> {
        let layout = LogLayout::new(audit_dir.join(log.folder()));
        let path = layout.dir.join(CHECKPOINT_FILE);
        // Read before the records: they then reach at least as far as it.
        let note = match fs::read_to_string(&path) {
            Ok(note) => note,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(QueryError::Io { path, source }),
        };
        let Ok(checkpoint) = Checkpoint::parse_unchecked(&note) else { return Ok(None) };
        let hashes = LeafHashes::open(layout).map_err(|e| QueryError::Proof(e.to_string()))?;
        Ok(Some(Self { hashes, note, size: checkpoint.size }))
    }

    /// The checkpoint, a C2SP note.
    pub fn checkpoint(&self) -> &str {
        &self.note
    }

    /// The audit path of record `index`; `None` when the checkpoint does not cover it yet.
    pub fn inclusion(&self, index: u64) -> Result<Option<Vec<Hash>>, QueryError> {
        if index >= self.size {
            return Ok(None);
        }
        let path = self.hashes.inclusion(index, self.size);
        path.map(Some).map_err(|e| QueryError::Proof(e.to_string()))
    }
}
