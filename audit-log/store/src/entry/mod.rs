//! What is proposed to the audit group, and what its machine replies: bounded binary forms.
//!
//! Layout: one version byte, one kind byte, then numbers in little-endian and texts and bytes
//! behind their length.

mod command;
mod form;
mod reply;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use provost_audit_core::{Hash, LogId};

pub use self::{command::Command, form::EntryError, reply::Reply};

/// Records in one entry.
pub(crate) const MAX_BATCH_RECORDS: usize = 1_024;
/// Bytes of leaves in one entry.
pub(crate) const MAX_BATCH_BYTES: usize = 4 << 20;
/// Logs that one checkpoint entry may name.
pub(crate) const MAX_HEADS: usize = 4_096;
/// The kind of entries and replies about keys.
pub(crate) const KEYS_KIND: u8 = 40;
/// The kind of entries and replies about keeping records.
const RETENTION_KIND: u8 = 32;

/// One leaf on its way to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRecord {
    /// The log.
    pub log: LogId,
    /// The exact bytes to be stored.
    pub leaf: Bytes,
    /// The sealed body that is stored beside it, where the record names one.
    pub body: Option<Bytes>,
}

impl AppendRecord {
    /// About how long it is in an entry.
    pub(crate) fn encoded_len(&self) -> usize {
        self.leaf.len() + self.body.as_ref().map_or(0, Bytes::len) + 80
    }
}

/// A batch of leaves of one writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The writer.
    pub writer: String,
    /// Its start count; entries of older epochs are refused.
    pub epoch: u64,
    /// From 0 in each epoch, without gaps: a repeated batch is answered, not appended again.
    pub batch: u64,
    /// The leaves.
    pub records: Vec<AppendRecord>,
}

/// The change of the key that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The record in the cluster's log that names the new key.
    pub record: u64,
    /// The raw Ed25519 key that signed until now.
    pub follows: [u8; 32],
    /// The one that signs from now on.
    pub public_key: [u8; 32],
    /// A checkpoint of every log, signed by both.
    pub notes: Vec<String>,
}

/// The head of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log.
    pub log: LogId,
    /// Leaves.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Hash,
    /// Running chain.
    pub chain: Hash,
}
