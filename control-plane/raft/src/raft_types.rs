//! The types openraft is instantiated with. Commands and replies are opaque bytes.

use std::fmt;

use bytes::Bytes;
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use crate::{codec, snapshot_file::SnapshotFile};

/// A command as the log carries it: bytes that only the machine understands.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the contents: commands may carry what must not reach a log line.
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Where openraft's tasks run and its random numbers come from.
#[cfg(not(test))]
#[allow(deprecated, reason = "the new name is in a crate that is no dependency of ours")]
pub(crate) type Runtime = openraft::TokioRuntime;
/// The same, with random numbers from the seed of a simulation.
#[cfg(test)]
pub(crate) type Runtime = crate::sim::SeededRuntime;

openraft::declare_raft_types!(
    /// Provost's instantiation of openraft. Leader ids are the standard ones: at most one leader
    /// a term, so that a term names a leadership wherever it is used as a fence. openraft's
    /// default lets a node of a higher id take over within the term.
    pub(crate) Types:
        D = Command,
        R = Vec<u8>,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = crate::raft_types::Runtime,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type LogEntry = openraft::type_config::alias::EntryOf<Types>;
/// About how many bytes an entry has in a record.
pub(crate) fn room(entry: &LogEntry) -> usize {
    let command = match &entry.payload {
        EntryPayload::Normal(Command(bytes)) => bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    command.saturating_add(codec::SMALL)
}

pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>;
pub(crate) type Raft = openraft::Raft<Types, crate::adapter::MachineAdapter>;
/// Where openraft publishes what it knows; a borrowed value must be let go at once.
pub(crate) type MetricsReceiver = openraft::type_config::alias::WatchReceiverOf<Types, openraft::RaftMetrics<Types>>;
