//! Audit sequencer, segments on disk and the audit Raft group.
//!
//! Purpose: many callers hand in events; one task makes leaves of them and proposes them in
//! batches to the audit group; the group's machine gives each its place, links the chains and
//! writes the files.
//! Invariants: a record is acknowledged only after its entry is fsynced on a quorum and applied;
//! the files are derived from the Raft log and can be made again from the last persisted state
//! on; a checkpoint never covers records whose files are not fsynced; any failed write ends the
//! writing, it is never retried.
//! Left out: proving (`provost-audit-verify`), witnesses, sealed bodies, retention.

mod audit_log;
mod checkpointer;
mod config;
mod entry;
mod error;
mod held;
mod key;
mod log_files;
mod machine;
mod outside;
mod persist;
mod query;
mod recovery;
mod rotation;
mod sequencer;
mod state;
mod tenant_heads;

pub use audit_log::{AuditLog, AuditStatus, open};
pub use config::AuditLogConfig;
pub use entry::{Append, AppendRecord, Command, EntryError, Head, Reply};
pub use error::AuditError;
pub use held::HeldCheckpoint;
pub use key::CheckpointKey;
pub use machine::{AuditMachine, SharedMachine};
pub use query::{Found, Query, QueryError, Shown, query, show};
pub use rotation::next_key_file;
