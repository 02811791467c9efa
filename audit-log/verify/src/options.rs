//! What a verification is told.

use std::path::PathBuf;

use provost_audit_core::LogId;

use crate::receipt::Receipt;

/// Options of [`crate::verify`]; the default verifies everything against nothing from outside.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// A file with one or more checkpoints that the auditor kept or got from elsewhere: the anchor
    /// without which nothing is proven.
    pub against: Option<PathBuf>,
    /// Only records from this time on are read in full (nanoseconds since the Unix epoch); older
    /// whole segments are taken by their roots, which the signed checkpoints still cover.
    pub since_ns: Option<u64>,
    /// Only this log.
    pub log: Option<LogId>,
    /// Also prove that this index is covered by the latest checkpoint of [`VerifyOptions::log`].
    pub proof: Option<u64>,
    /// The C2SP verifier key that checkpoints must be signed with, got from elsewhere.
    pub trusted_key: Option<String>,
    /// The newest checkpoint must not be older than this, nanoseconds; needs `now_ns`.
    pub max_age_ns: Option<u64>,
    /// A C2SP policy file: checkpoints that enough of its witnesses cosigned are an anchor.
    pub witness_policy: Option<PathBuf>,
    /// Receipts of callers, to be found in the logs.
    pub receipts: Vec<Receipt>,
    /// The time now, nanoseconds since the Unix epoch.
    pub now_ns: Option<u64>,
}
