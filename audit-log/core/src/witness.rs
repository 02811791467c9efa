//! C2SP tlog-witness: what a request says and what a witness decides, without network or disk.
//!
//! Source: <https://c2sp.org/tlog-witness>.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    checkpoint::{MAX_CHECKPOINT_BYTES, TreeHead, base64_hash, decimal},
    hash::Hash,
    note::{NoteVerifier, SignedNote, VerifierKey},
    proof::verify_consistency,
};

/// Hashes of a consistency proof: more are refused.
pub const MAX_PROOF_HASHES: usize = 63;
/// The longest request body, in bytes: a line of 45 for each hash, the first line, a checkpoint.
pub const MAX_REQUEST_BYTES: usize = 64 + MAX_PROOF_HASHES * 45 + MAX_CHECKPOINT_BYTES;

/// A request to cosign: `add-checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness is said to have cosigned last.
    pub old_size: u64,
    /// Consistency proof from there.
    pub proof: Vec<Hash>,
    /// The checkpoint, a signed note.
    pub note: String,
}

/// Why a witness does not cosign; the HTTP status is [`Refusal::status`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is not in its form, or its sizes contradict each other.
    #[error("bad request: {0}")]
    Malformed(&'static str),
    /// The log is not one of the witness's.
    #[error("the log `{0}` is not known here")]
    UnknownLog(String),
    /// No signature of a trusted key holds.
    #[error("no valid signature of a trusted key of this log")]
    Unsigned,
    /// The witness stands elsewhere.
    #[error("the latest cosigned checkpoint has {0} leaves")]
    Conflict(u64),
    /// The log's history was rewritten, or the proof is wrong.
    #[error("the consistency proof does not hold")]
    Inconsistent,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::UnknownLog(_) => 404,
            Refusal::Unsigned => 403,
            Refusal::Conflict(_) => 409,
            Refusal::Inconsistent => 422,
        }
    }
}

impl AddCheckpoint {
    /// The request body.
    pub fn to_text(&self) -> String {
        let mut text = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            text.push_str(&BASE64.encode(hash.0));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Reads a request body.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let malformed = Refusal::Malformed;
        if body.len() > MAX_REQUEST_BYTES {
            return Err(malformed("too long"));
        }
        let text = std::str::from_utf8(body).map_err(|_| malformed("not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(malformed("no empty line after the proof"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old_size = decimal(old.unwrap_or_default()).map_err(|_| malformed("the first line is not `old SIZE`"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == MAX_PROOF_HASHES {
                return Err(malformed("more than 63 hashes"));
            }
            proof.push(base64_hash(line).map_err(|_| malformed("a proof line is not a base64 SHA-256 value"))?);
        }
        Ok(Self { old_size, proof, note: note.to_owned() })
    }

    /// The origin of the checkpoint, before anything is checked.
    pub fn origin(&self) -> &str {
        self.note.split('\n').next().unwrap_or_default()
    }

    /// What may be cosigned: the head, and the note's text. `held` is what the witness cosigned last
    /// for this log; `keys` are the keys that it trusts for it.
    pub fn check(
        &self,
        keys: &[VerifierKey],
        held: Option<&TreeHead>,
        verifier: &dyn NoteVerifier,
    ) -> Result<(TreeHead, &str), Refusal> {
        if keys.is_empty() {
            return Err(Refusal::UnknownLog(self.origin().to_owned()));
        }
        let note = SignedNote::parse(&self.note).map_err(|_| Refusal::Malformed("no signed note after the proof"))?;
        let head = TreeHead::parse_text(note.text).map_err(|_| Refusal::Malformed("the note is no checkpoint"))?;
        if !keys.iter().any(|key| note.check(key, verifier).is_ok()) {
            return Err(Refusal::Unsigned);
        }
        if self.old_size > head.size {
            return Err(Refusal::Malformed("the old size is above the checkpoint's"));
        }
        let held_size = held.map_or(0, |held| held.size);
        if self.old_size != held_size {
            return Err(Refusal::Conflict(held_size));
        }
        let Some(held) = held else {
            return if self.proof.is_empty() { Ok((head, note.text)) } else { Err(Refusal::Inconsistent) };
        };
        if held.size == head.size && held.root != head.root {
            return Err(Refusal::Conflict(held_size));
        }
        verify_consistency(held.size, head.size, &self.proof, &held.root, &head.root)
            .map_err(|_| Refusal::Inconsistent)?;
        Ok((head, note.text))
    }
}
