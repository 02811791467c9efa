//! Makes proof files from a log's own files: C2SP tlog-proof for a record, ours for consistency.
//!
//! Nothing is checked here: a proof made from changed files does not verify.

use std::path::PathBuf;

use provost_audit_core::{Checkpoint, Hash, TlogConsistency, TlogProof, verify_inclusion};

use crate::{
    anchor::Known,
    layout::{CHECKPOINT_FILE, COSIGNED_FILE, HISTORY_FILE, LogLayout},
    leaf_hashes::{LeafHashError, LeafHashes},
    notes::read_notes,
    report::ProofReport,
};

/// Why a proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// No checkpoint covers the record, or none has this size.
    #[error(
        "PV-AUDIT-PROOF: {path}: no signed checkpoint {wanted}; wait a second for the next one, or name another size"
    )]
    NotSigned {
        /// The log's folder.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
    },
    /// The checkpoints cannot be read.
    #[error("PV-AUDIT-IO: {path}: {source}; check that this is an audit directory you may read")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The hashes cannot be read.
    #[error("PV-AUDIT-PROOF: {0}; run `provost audit verify` on this directory")]
    Hashes(#[from] LeafHashError),
}

/// The proof that record `index` is in the log, under the checkpoint of `size` records or, without
/// it, under the latest one; a cosigned one goes before others.
pub fn prove_inclusion(layout: &LogLayout, index: u64, size: Option<u64>) -> Result<TlogProof, ProveError> {
    let fits = |found: u64| size.map_or(found > index, |size| found == size);
    let wanted = || size.map_or_else(|| format!("covers record {index}"), |size| format!("has {size} records"));
    let (size, checkpoint) = find(layout, fits)?.ok_or_else(|| not_signed(layout, wanted()))?;
    let path = LeafHashes::open(layout.clone())?.inclusion(index, size)?;
    Ok(TlogProof { index, path, checkpoint })
}

/// The proof that the log of `new` records (by default the latest signed size) extends that of `old`.
pub fn prove_consistency(layout: &LogLayout, old: u64, new: Option<u64>) -> Result<TlogConsistency, ProveError> {
    let fits = |found: u64| new.map_or(found >= old, |new| found == new);
    let wanted = || new.map_or_else(|| format!("has {old} records or more"), |new| format!("has {new} records"));
    let (new, checkpoint) = find(layout, fits)?.ok_or_else(|| not_signed(layout, wanted()))?;
    let hashes = LeafHashes::open(layout.clone())?;
    let path = hashes.consistency(old, new)?;
    Ok(TlogConsistency { old_size: old, old_root: hashes.root(0..old)?, path, checkpoint })
}

fn not_signed(layout: &LogLayout, wanted: String) -> ProveError {
    ProveError::NotSigned { path: layout.dir.clone(), wanted }
}

/// The cosigned, else the latest, else the newest earlier checkpoint that fits.
fn find(layout: &LogLayout, fits: impl Fn(u64) -> bool) -> Result<Option<(u64, String)>, ProveError> {
    for name in [COSIGNED_FILE, CHECKPOINT_FILE, HISTORY_FILE] {
        let path = layout.dir.join(name);
        let io = |source| ProveError::Io { path: path.clone(), source };
        let mut found = None;
        for note in read_notes(&path).map_err(io)? {
            let note = note.map_err(|fault| io(fault.into()))?;
            if let Ok(checkpoint) = Checkpoint::parse_unchecked(&note.text)
                && fits(checkpoint.size)
            {
                found = Some((checkpoint.size, note.text));
            }
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// A proof, made and checked, that record `index` is under the checkpoint `good`.
pub(crate) fn prove_report(layout: &LogLayout, index: u64, good: Option<&Known>) -> ProofReport {
    let empty = Hash::ZERO;
    let mut report = ProofReport { index, leaf_hash: empty, size: 0, root: empty, path: Vec::new(), holds: false };
    let Some(good) = good else { return report };
    report.size = good.checkpoint.size;
    report.root = good.checkpoint.root;
    let proof = LeafHashes::open(layout.clone()).and_then(|hashes| {
        let path = hashes.inclusion(index, report.size)?;
        Ok((hashes.root(index..index + 1)?, path))
    });
    if let Ok((leaf, path)) = proof {
        report.leaf_hash = leaf;
        report.holds = verify_inclusion(&leaf, index, report.size, &path, &report.root).is_ok();
        report.path = path;
    }
    report
}
