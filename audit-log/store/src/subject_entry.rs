//! What is proposed about subjects' keys, and what the machine replies.
//!
//! No key is in an entry as it is: it is wrapped under the log key, which is never in the Raft log
//! and is replaced by one that follows from it, and does not lead back, whenever keys are
//! destroyed. Old entries then hold nothing that anybody can open.

use provost_audit_core::LogId;
use provost_types::{KeyId, Pseudonym};
use serde::{Deserialize, Serialize};

use crate::retention_state::Hold;

/// The longest reason that an erasure carries, bytes.
pub(crate) const MAX_REASON: usize = 1_024;

/// Whose key for which month.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// The tenant's log.
    pub log: LogId,
    /// The subject.
    pub subject: Pseudonym,
    /// [`provost_types::Month::number`].
    pub month: u32,
}

/// An entry about keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyCommand {
    /// The key from which a tenant's pseudonyms follow. The first one counts.
    Pseudonyms {
        /// The tenant's log.
        log: LogId,
        /// Of the log key that it is wrapped under.
        generation: u64,
        /// The key, wrapped.
        wrapped: Vec<u8>,
    },
    /// A subject's key. The first one counts, until it is destroyed.
    Make {
        /// Whose.
        slot: Slot,
        /// Its name.
        id: KeyId,
        /// Of the log key that it is wrapped under.
        generation: u64,
        /// Key and the subject's name, wrapped.
        wrapped: Vec<u8>,
    },
    /// Destroy a subject's keys.
    Erase(Erasure),
    /// The erasure's record is in the log.
    Recorded(u128),
}

/// An order to destroy keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Its own id: the call id of its record. An order that is repeated does nothing more.
    pub id: u128,
    /// The tenant's log.
    pub log: LogId,
    /// The subject.
    pub subject: Pseudonym,
    /// Only keys of months before this one.
    pub before: Option<u32>,
    /// Why.
    pub reason: String,
    /// Who ordered it, how they proved that, and from where.
    pub by: (String, String, Option<String>),
    /// When.
    pub time_ns: u64,
}

/// What the machine replies about keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyReply {
    /// Done, now or before.
    Done,
    /// The slot's key has this name.
    Key(KeyId),
    /// Wrapped under a log key that is gone: wrap it again.
    Stale {
        /// The generation of the log key now.
        generation: u64,
    },
    /// There are as many keys as there may be.
    Full,
    /// These keys are destroyed.
    Erased(Vec<KeyId>),
    /// Nothing is destroyed: this hold keeps the bodies.
    Held(Hold),
}
