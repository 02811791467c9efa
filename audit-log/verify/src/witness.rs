//! A witness policy as an anchor: who cosigned the cluster's checkpoints, and is it enough?
//!
//! Invariants: a checkpoint with enough valid cosignatures of distinct witnesses is an anchor from
//! outside, wherever it was found; too few say nothing; a line that claims to be of a known witness
//! and does not verify is a forgery.

use std::{fs, path::Path};

use provost_audit_core::{SignedNote, VerifierKey, WitnessPolicy};

use crate::{ed25519::Ed25519, verify::UsageError};

/// The auditor's policy and what it has seen so far.
#[derive(Clone, Debug)]
pub(crate) struct Witnesses {
    policy: WitnessPolicy,
}

impl Witnesses {
    pub(crate) fn read(path: &Path) -> Result<Self, UsageError> {
        let wrong = |why: String| UsageError::Policy { path: path.to_owned(), why };
        let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let policy = WitnessPolicy::parse(&text).map_err(|e| wrong(e.to_string()))?;
        if !policy.asks_for_witnesses() {
            return Err(wrong("`quorum none` asks nobody: it proves nothing".to_owned()));
        }
        Ok(Self { policy })
    }

    /// The key that the policy trusts for this origin.
    pub(crate) fn log_key(&self, origin: &str) -> Option<&VerifierKey> {
        self.policy.log_key(origin)
    }

    /// Whether the policy lists logs at all.
    pub(crate) fn lists_logs(&self) -> bool {
        !self.policy.logs.is_empty()
    }

    /// Whether enough witnesses cosigned the note, and which did; an error when one line is forged.
    pub(crate) fn judge(&self, note: &str) -> Result<(bool, Vec<String>), String> {
        let note = SignedNote::parse(note).map_err(|e| e.to_string())?;
        let cosigned = self.policy.cosigned(&note, &Ed25519);
        let cosigned = cosigned.map_err(|e| format!("a cosignature is forged or damaged: {e}"))?;
        Ok((cosigned.enough, cosigned.by.into_iter().map(|(name, _)| name).collect()))
    }
}
