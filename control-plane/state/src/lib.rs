//! Deterministic control-plane state.
//!
//! Purpose: `apply(state, revision, transaction)` as a pure function, with the checks that make a
//! set of resources sound, the history that makes changes explainable, and rollback.
//! Invariants: same state and same transaction give the same result on every node; a rejected
//! transaction changes nothing; every stored reference points at something that exists.
//! Left out: storage and replication (`provost-control-api`, `provost-control-raft`), the meaning
//! of Cedar text (an admission check outside), the quota ledger.

mod command;
mod fields;
mod history;
mod problem;
mod references;
mod rollback;
mod state;

pub use command::{
    CommandError, Draft, Event, Expectation, MAX_MESSAGE_BYTES, MAX_TRANSACTION_CHANGES, SealingKey, StoredCommand,
    Transaction,
};
pub use history::{ChangeKind, HistoryEntry, KeyChange, MAX_HISTORY};
pub use problem::{Problem, Rejected};
pub use rollback::RollbackError;
pub use state::{Applied, Resources, State};
