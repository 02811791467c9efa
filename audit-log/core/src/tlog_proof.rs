//! C2SP tlog-proof: that a record is in a log, as one file that is checked offline.
//!
//! Source: <https://c2sp.org/tlog-proof>. Consistency between two sizes has no C2SP file format;
//! [`TlogConsistency`] is ours, of the same make.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    checkpoint::{CheckpointError, MAX_CHECKPOINT_BYTES, TreeHead, base64_hash, decimal},
    hash::Hash,
    note::{NoteVerifier, SignedNote, VerifierKey},
    proof::{ProofError, verify_consistency, verify_inclusion},
};

const INCLUSION_MARK: &str = "c2sp.org/tlog-proof@v1";
const CONSISTENCY_MARK: &str = "provost/tlog-consistency@v1";
/// Hashes of one proof: a tree of 2^64 leaves has no more levels.
const MAX_HASHES: usize = 64;
/// The longest proof file that is read, in bytes.
pub const MAX_TLOG_PROOF_BYTES: usize = 1024 + MAX_HASHES * 45 + 2 * MAX_CHECKPOINT_BYTES;

/// A record's place, the path from it to a root, and the checkpoint that signs the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The record's index.
    pub index: u64,
    /// RFC 6962 audit path.
    pub path: Vec<Hash>,
    /// The checkpoint, a signed note.
    pub checkpoint: String,
}

/// The path from one signed size to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogConsistency {
    /// The smaller size.
    pub old_size: u64,
    /// Its root, as the prover claims.
    pub old_root: Hash,
    /// RFC 6962 consistency proof.
    pub path: Vec<Hash>,
    /// The later checkpoint, a signed note.
    pub checkpoint: String,
}

/// Why a proof file does not prove anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Not in the form.
    #[error("not a proof file: {0}")]
    Malformed(&'static str),
    /// The checkpoint in it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The path in it.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl TlogProof {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let head = format!("{INCLUSION_MARK}\nindex {}\n", self.index);
        join(head, &self.path, &self.checkpoint)
    }

    /// Reads the file's text; nothing is checked yet.
    pub fn parse(text: &str) -> Result<Self, TlogProofError> {
        let (mut lines, checkpoint) = parts(text, INCLUSION_MARK)?;
        if lines.first().is_some_and(|line| line.starts_with("extra ")) {
            lines.remove(0);
        }
        let index = number(&lines, 0, "index ")?;
        Ok(Self { index, path: hashes(lines.get(1..))?, checkpoint })
    }

    /// Checks signature and path; gives the head under which the record is proven.
    pub fn check(
        &self,
        leaf: &Hash,
        key: &VerifierKey,
        verifier: &dyn NoteVerifier,
    ) -> Result<TreeHead, TlogProofError> {
        let head = signed_head(&self.checkpoint, key, verifier)?;
        verify_inclusion(leaf, self.index, head.size, &self.path, &head.root)?;
        Ok(head)
    }
}

impl TlogConsistency {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let head = format!("{CONSISTENCY_MARK}\nold {}\nroot {}\n", self.old_size, BASE64.encode(self.old_root.0));
        join(head, &self.path, &self.checkpoint)
    }

    /// Reads the file's text; nothing is checked yet.
    pub fn parse(text: &str) -> Result<Self, TlogProofError> {
        let (lines, checkpoint) = parts(text, CONSISTENCY_MARK)?;
        let old_size = number(&lines, 0, "old ")?;
        let root = lines.get(1).and_then(|line| line.strip_prefix("root "));
        let old_root = base64_hash(root.ok_or(TlogProofError::Malformed("no line `root HASH`"))?)?;
        Ok(Self { old_size, old_root, path: hashes(lines.get(2..))?, checkpoint })
    }

    /// Checks signature and path against the older head that the checker kept.
    pub fn check(
        &self,
        old: &TreeHead,
        key: &VerifierKey,
        verifier: &dyn NoteVerifier,
    ) -> Result<TreeHead, TlogProofError> {
        let head = signed_head(&self.checkpoint, key, verifier)?;
        if old.size != self.old_size || old.origin != head.origin {
            return Err(TlogProofError::Malformed("it begins at another size or is of another log"));
        }
        verify_consistency(old.size, head.size, &self.path, &old.root, &head.root)?;
        Ok(head)
    }
}

fn signed_head(note: &str, key: &VerifierKey, verifier: &dyn NoteVerifier) -> Result<TreeHead, TlogProofError> {
    let note = SignedNote::parse(note).map_err(CheckpointError::from)?;
    note.check(key, verifier).map_err(CheckpointError::from)?;
    let head = TreeHead::parse_text(note.text)?;
    if head.origin != key.name {
        return Err(TlogProofError::Malformed("the checkpoint is of another log than the key"));
    }
    Ok(head)
}

fn join(mut text: String, path: &[Hash], checkpoint: &str) -> String {
    for hash in path {
        text.push_str(&BASE64.encode(hash.0));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(checkpoint);
    text
}

fn parts<'a>(text: &'a str, mark: &str) -> Result<(Vec<&'a str>, String), TlogProofError> {
    if text.len() > MAX_TLOG_PROOF_BYTES {
        return Err(TlogProofError::Malformed("too long"));
    }
    let (head, checkpoint) = text.split_once("\n\n").ok_or(TlogProofError::Malformed("no empty line"))?;
    let mut lines: Vec<&str> = head.split('\n').collect();
    if lines.first() != Some(&mark) {
        return Err(TlogProofError::Malformed("the first line names another format"));
    }
    lines.remove(0);
    Ok((lines, checkpoint.to_owned()))
}

fn number(lines: &[&str], at: usize, key: &str) -> Result<u64, TlogProofError> {
    let text = lines.get(at).and_then(|line| line.strip_prefix(key));
    text.and_then(|text| decimal(text).ok()).ok_or(TlogProofError::Malformed("a number is missing"))
}

fn hashes(lines: Option<&[&str]>) -> Result<Vec<Hash>, TlogProofError> {
    let lines = lines.unwrap_or_default();
    if lines.len() > MAX_HASHES {
        return Err(TlogProofError::Malformed("too many hashes"));
    }
    lines.iter().map(|line| base64_hash(line).map_err(TlogProofError::from)).collect()
}
