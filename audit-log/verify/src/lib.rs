//! Offline audit verifier: integrity, authenticity, completeness, retention.
//!
//! Purpose: somebody who trusts nobody copies an audit directory and learns what it proves. The
//! reading half ([`LogReader`], [`LeafHashes`]) also serves queries on a live log.
//! Invariants: no runtime, no network, no consensus; one pass, one block in memory at a time;
//! never a bare OK without an anchor from outside; damaged input ends in a report, not in a
//! panic.
//! Left out: writing anything.

mod anchor;
mod completeness;
mod ed25519;
mod index_check;
mod layout;
mod leaf_hashes;
mod log_check;
mod options;
mod pruned;
mod read;
mod render;
mod report;
mod segment_file;
mod verify;

pub use ed25519::Ed25519;
pub use index_check::{IndexCheck, IndexFault, check_indexes};
pub use layout::{CHECKPOINT_FILE, HISTORY_FILE, KEY_FILE, LogLayout, SEGMENTS_DIR, list_logs, tail_name};
pub use leaf_hashes::LeafHashes;
pub use options::VerifyOptions;
pub use pruned::{first_kept, read_pruned};
pub use read::{BlockFilter, Chunk, LogReader, ReadFault};
pub use report::{Exit, Failure, LogReport, ProofReport, Report, State, Verdict, Violation};
pub use segment_file::{SegmentFile, after};
pub use verify::{UsageError, verify};
