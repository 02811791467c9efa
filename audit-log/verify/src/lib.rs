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
mod key_chain;
mod layout;
mod leaf_hashes;
mod log_check;
mod options;
mod prove;
mod read;
mod receipt;
mod render;
mod report;
mod tenant_heads;
mod tiles;
mod verify;
mod witness;

pub use ed25519::Ed25519;
pub use layout::{
    CHECKPOINT_FILE, COSIGNED_FILE, HISTORY_FILE, KEY_FILE, KEYS_FILE, LogLayout, SEGMENTS_DIR, list_logs, tail_name,
};
pub use leaf_hashes::{LeafHashError, LeafHashes};
pub use options::VerifyOptions;
pub use prove::{ProveError, prove_consistency, prove_inclusion};
pub use read::{BlockFilter, Chunk, LogReader, ReadFault};
pub use receipt::{Receipt, ReceiptReport};
pub use report::{Exit, Failure, LogReport, ProofReport, Report, State, Verdict, Violation};
pub use tenant_heads::TENANT_CHECKPOINT;
pub use tiles::{LogTiles, TilesError};
pub use verify::{UsageError, verify};
