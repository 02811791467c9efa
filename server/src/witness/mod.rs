//! Witnesses: the service that an auditor runs, and how the audit log asks for cosignatures.
//!
//! Purpose: `provost audit witness` is a C2SP tlog-witness (`c2sp.org/tlog-witness`) for any log of
//! that make; [`ask`] sends it the checkpoints of the cluster's log.
//! Invariants: a witness answers only after its new state is fsynced, and never cosigns two heads of
//! one log of which one does not extend the other; a witness that hangs, lies or is gone delays or
//! spoils nothing but its own cosignature.
//! Left out: TLS (put a proxy before it; every answer is signed), ML-DSA-44.

pub mod ask;
pub mod serve;
pub mod state;

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the Unix epoch.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
