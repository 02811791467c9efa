//! Audit sequencer, segments on disk and the audit Raft group.
//!
//! Purpose: many callers hand in events; one task makes leaves of them and proposes them in
//! batches to the audit group; the group's machine gives each its place, links the chains and
//! writes the files.
//! Invariants: a record is acknowledged only after its entry is fsynced on a quorum and applied;
//! the files are derived from the Raft log and can be made again from the last persisted state
//! on; a checkpoint never covers records whose files are not fsynced; any failed write ends the
//! writing, it is never retried.
//! the keys of bodies are never in a Raft log as they are, nor in the directory that is copied.
//! Left out: proving (`provost-audit-verify`), witnesses, retention.

mod audit_log;
mod body_files;
mod checkpointer;
mod config;
mod entry;
mod erase;
#[cfg(test)]
mod erase_tests;
mod error;
mod key;
mod log_files;
mod machine;
mod open_body;
mod persist;
mod query;
mod recovery;
mod sequencer;
mod state;
mod subject_entry;
mod subject_file;
mod subject_keys;
mod subject_names;
mod subject_secret;
mod subject_state;
mod subject_store;

pub use audit_log::{AuditLog, AuditStatus, open};
pub use config::AuditLogConfig;
pub use entry::{Append, AppendRecord, Command, EntryError, Head, Reply};
pub use erase::{ERASE_EVENT, EraseError, EraseOrder, Erased, HoldCheck};
pub use error::AuditError;
pub use key::CheckpointKey;
pub use machine::{AuditMachine, SharedMachine};
pub use open_body::{BodyError, BodyShown, BodyState};
pub use query::{Found, Query, QueryError, Shown, query, show};
pub use subject_entry::{Erasure, KeyCommand, KeyReply, Slot};
pub use subject_file::SubjectPaths;
pub use subject_names::{Identity, stored_identities};
pub use subject_store::adopt_keys;
