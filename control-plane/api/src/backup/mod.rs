//! Backups of the whole control state: taken online at one revision, verified anywhere, restored
//! offline as a new cluster.
//!
//! A backup holds resources, history, the cluster's facts, the quota ledger and the ring of data
//! keys. Secrets in it are sealed and data keys wrapped, so it is worth nothing without the key
//! provider; what else is in it (policies, names, hashes of tokens) is plain, so it can be
//! encrypted as a whole by whoever writes it to a file.
//!
//! Invariants: a file is restored only if every byte of it is what was written; a restore writes
//! nothing into a folder that holds anything, and nothing before the whole file is verified.
//! Left out: the audit log (its files are copied as they are and verify by themselves), files of
//! nodes, encryption of the file.

mod format;
mod read;
mod restore;
mod take;

pub use format::{BackupError, BackupHeader};
pub use read::{BackupSummary, verify_backup};
pub use restore::{RestoreTarget, Restored, RestoredNode, restore_backup};
pub use take::BackupParts;
