//! Offline audit verifier: integrity, authenticity, completeness, retention.
//!
//! Purpose: somebody who trusts nobody copies an audit directory and learns what it proves. The
//! reading half ([`LogReader`], [`LeafHashes`]) also serves queries on a live log.
//! Invariants: no runtime, no network, no consensus; each record is read once, by one of a few
//! threads that check a block each, and the memory grows with checkpoints and open calls, not with
//! records; never a bare OK without an anchor from outside; damaged input ends in a report, not in
//! a panic.
//! Left out: writing anything.

mod anchor;
mod block_check;
mod bodies;
mod completeness;
mod ed25519;
mod facts;
mod html;
mod index_check;
mod key_chain;
mod layout;
mod leaf_hashes;
mod log_check;
mod marks;
mod noted;
mod notes;
mod options;
mod pass;
mod pool;
mod prove;
mod pruned;
mod read;
mod receipt;
mod regular;
mod render;
mod report;
mod segment_file;
mod segment_read;
mod tail;
mod tenant_heads;
mod tiles;
mod verdicts;
mod verify;
mod walk;
mod witness;

pub use ed25519::Ed25519;
pub use html::HtmlContext;
pub use index_check::{IndexCheck, IndexFault, check_indexes};
pub use layout::{
    CHECKPOINT_FILE, COSIGNED_FILE, HISTORY_FILE, KEY_FILE, KEYS_FILE, LogLayout, SEGMENTS_DIR, list_logs, tail_name,
};
pub use leaf_hashes::{LeafHashError, LeafHashes};
pub use noted::TENANT_CHECKPOINT;
pub use options::VerifyOptions;
pub use prove::{ProveError, prove_consistency, prove_inclusion};
pub use pruned::{first_kept, read_pruned};
pub use read::{BlockFilter, Chunk, LogReader};
pub use receipt::{Receipt, ReceiptReport};
pub use report::{Exit, Failure, LogReport, ProofReport, Report, State, Verdict, Violation};
pub use segment_read::{SegmentFile, after};
pub use tiles::{LogTiles, TilesError};
pub use verify::{UsageError, verify};
pub use walk::ReadFault;
