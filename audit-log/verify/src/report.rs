//! What a verification found.

use std::path::PathBuf;

use provost_audit_core::Hash;
use serde::Serialize;

use crate::receipt::ReceiptReport;

/// How a verification ends, as the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Everything holds and is anchored outside.
    Proven = 0,
    /// Something was changed, forged or removed.
    Tampered = 1,
    /// Everything holds within itself; nothing from outside says that it is the whole truth.
    Unanchored = 2,
    /// The newest checkpoint is older than asked for.
    Stale = 3,
    /// Parts of the input are not there.
    Incomplete = 4,
    /// The question was wrong.
    Usage = 5,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The worse of two: a change outweighs a gap, a gap outweighs age, age a missing anchor.
    pub fn worse(self, other: Exit) -> Exit {
        let rank = |exit| match exit {
            Exit::Proven => 0,
            Exit::Unanchored => 1,
            Exit::Stale => 2,
            Exit::Incomplete => 3,
            Exit::Tampered => 4,
            Exit::Usage => 5,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// One of the four verdicts on one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The verdict.
    pub state: State,
    /// One sentence.
    pub text: String,
}

/// A verdict without its sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Holds, and an anchor from outside says so too.
    Proven,
    /// Holds within itself.
    Consistent,
    /// Does not hold.
    Failed,
    /// Too old.
    Stale,
    /// Cannot be told: input is missing.
    Incomplete,
}

impl State {
    /// The exit code that this state alone would give.
    pub fn exit(self) -> Exit {
        match self {
            State::Proven => Exit::Proven,
            State::Consistent => Exit::Unanchored,
            State::Failed => Exit::Tampered,
            State::Stale => Exit::Stale,
            State::Incomplete => Exit::Incomplete,
        }
    }
}

/// Where and how a log first fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What was probably done, in words.
    pub attack: String,
    /// First bad index.
    pub index: u64,
    /// The file that holds it.
    pub file: PathBuf,
    /// Byte offset of the part that holds it.
    pub offset: u64,
    /// The hash that should be there.
    pub expected: Option<Hash>,
    /// The hash that is there.
    pub actual: Option<Hash>,
    /// Size of the last checkpoint that still holds; 0 when none does.
    pub last_good_checkpoint: u64,
}

/// A record that breaks a rule of completeness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its index.
    pub index: u64,
    /// The file that holds it.
    pub file: PathBuf,
    /// Byte offset of the part that holds it.
    pub offset: u64,
    /// Which rule.
    pub what: String,
}

/// An inclusion proof that was made and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProofReport {
    /// The leaf's index.
    pub index: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// The checkpoint's size.
    pub size: u64,
    /// The checkpoint's root.
    pub root: Hash,
    /// RFC 6962 audit path.
    pub path: Vec<Hash>,
    /// Whether path and leaf lead to the root.
    pub holds: bool,
}

impl ProofReport {
    /// Whether the checkpoint reaches the record at all; if not, nothing can be proven of it yet.
    pub fn is_covered(&self) -> bool {
        self.index < self.size
    }
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Its origin.
    pub origin: String,
    /// Records read (or taken by their segment's root).
    pub records: u64,
    /// Records covered by the latest good checkpoint.
    pub signed: u64,
    /// Records beyond it: chained but unsigned.
    pub beyond: u64,
    /// Size of the anchor that this log was compared with.
    pub anchored: Option<u64>,
    /// When the latest good checkpoint was signed, nanoseconds since the Unix epoch.
    pub signed_at_ns: Option<u64>,
    /// RFC 6962 root over `records`.
    pub root: Hash,
    /// Running chain over `records`.
    pub chain: Hash,
    /// Calls that had begun and not ended when the log was copied.
    pub open_intents: u64,
    /// Are the records those that were written, in that order?
    pub integrity: Verdict,
    /// Did the log's key sign them?
    pub authenticity: Verdict,
    /// Is nothing missing?
    pub completeness: Verdict,
    /// Is everything still there that had to be kept?
    pub retention: Verdict,
    /// The first failure of integrity or authenticity.
    pub failure: Option<Failure>,
    /// The first violations of completeness.
    pub violations: Vec<Violation>,
    /// Records dated before a checkpoint that was signed before they were recorded.
    pub back_dated: u64,
    /// The first of those: times are what writers say, so they change no verdict.
    pub suspicions: Vec<Violation>,
    /// Things worth knowing that change no verdict.
    pub notes: Vec<String>,
    /// The proof that was asked for.
    pub proof: Option<ProofReport>,
}

impl LogReport {
    /// The four verdicts with their names.
    pub fn verdicts(&self) -> [(&'static str, &Verdict); 4] {
        [
            ("INTEGRITY", &self.integrity),
            ("AUTHENTICITY", &self.authenticity),
            ("COMPLETENESS", &self.completeness),
            ("RETENTION", &self.retention),
        ]
    }

    /// The exit code of this log alone.
    pub fn exit(&self) -> Exit {
        let worst = self.verdicts().iter().fold(Exit::Proven, |e, (_, v)| e.worse(v.state.exit()));
        match &self.proof {
            Some(proof) if !proof.holds && !proof.is_covered() => worst.worse(Exit::Incomplete),
            Some(proof) if !proof.holds => Exit::Tampered,
            _ => worst,
        }
    }
}

/// The whole verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was verified.
    pub path: PathBuf,
    /// How it ends.
    pub exit: Exit,
    /// One sentence.
    pub verdict: String,
    /// Each log.
    pub logs: Vec<LogReport>,
    /// Logs that the anchor or the cluster's log knows and the directory lacks.
    pub missing_logs: Vec<String>,
    /// What became of the callers' receipts.
    pub receipts: Vec<ReceiptReport>,
}

impl Report {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        self.exit.code()
    }
}
