//! What can go wrong with a group, as callers branch on it.

use std::{io, time::Duration};

/// A failure of a group. Each carries a stable code: see [`GroupError::code`].
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The store belongs to another cluster, group or node.
    #[error(
        "the Raft store in {path} belongs to {found}, not to {expected}; a node id is never reused: \
         point this node at its own data directory, or remove the old node from the cluster and \
         join as a new one"
    )]
    Identity {
        /// The store's folder.
        path: String,
        /// `cluster/group/node` as stored.
        found: String,
        /// `cluster/group/node` as configured.
        expected: String,
    },
    /// The store is empty although this node has run before.
    #[error(
        "this node has run before and its Raft log is gone ({path}): it forgot what it promised to the others. \
         Never restart it under its id: remove node {node_id} from the cluster, and let this server join with a new \
         token under a new id"
    )]
    Wiped {
        /// The store's folder.
        path: String,
        /// This node.
        node_id: u64,
    },
    /// The configuration cannot work.
    #[error("the Raft configuration of this group cannot work: {0}")]
    Config(String),
    /// The store cannot be opened or read.
    #[error(
        "the Raft store cannot be used: {0}; check that the folder is writable and that no other process has it open"
    )]
    Storage(#[from] io::Error),
    /// This node does not lead; ask the leader.
    #[error("this node does not lead the group; {}", match leader { Some(id) => format!("node {id} does"), None => "no leader is known, retry shortly".to_owned() })]
    NotLeader {
        /// The leader, if one is known.
        leader: Option<u64>,
    },
    /// The command was handed to a leader and its commit was not seen: it may or may not take
    /// effect, now or later.
    #[error(
        "the leader or the way to it was lost while the command was in flight: it may or may not take effect; \
         read before retrying"
    )]
    OutcomeUnknown,
    /// Too much is in flight; the command was not logged.
    #[error("the group takes no more work now: {0}; retry after a pause")]
    Busy(String),
    /// A quorum did not confirm in time.
    #[error("no quorum of the group answers: {0}")]
    NoQuorum(String),
    /// The command is larger than the log takes.
    #[error("the command has {bytes} bytes; the log takes at most {limit}: split it")]
    TooLarge {
        /// Size of the command.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {after:?}")]
    Timeout {
        /// What was awaited.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The membership cannot be changed so, or now.
    #[error("the membership cannot be changed: {0}")]
    Membership(String),
    /// A message of a peer cannot be understood.
    #[error("a peer's message cannot be understood: {0}")]
    Wire(String),
    /// The group was shut down.
    #[error("the group has been shut down")]
    Stopped,
}

impl GroupError {
    /// The stable code, with a page under `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            GroupError::Identity { .. } => "PV-RAFT-IDENTITY",
            GroupError::Wiped { .. } => "PV-RAFT-WIPED",
            GroupError::Config(_) => "PV-RAFT-CONFIG",
            GroupError::Storage(_) => "PV-RAFT-STORAGE",
            GroupError::NotLeader { .. } => "PV-RAFT-NOT-LEADER",
            GroupError::OutcomeUnknown => "PV-RAFT-OUTCOME-UNKNOWN",
            GroupError::Busy(_) => "PV-RAFT-BUSY",
            GroupError::NoQuorum(_) => "PV-RAFT-NO-QUORUM",
            GroupError::TooLarge { .. } => "PV-RAFT-TOO-LARGE",
            GroupError::Timeout { .. } => "PV-RAFT-TIMEOUT",
            GroupError::Membership(_) => "PV-RAFT-MEMBERSHIP",
            GroupError::Wire(_) => "PV-RAFT-WIRE",
            GroupError::Stopped => "PV-RAFT-STOPPED",
        }
    }

    /// Whether the command that was answered so is certainly in no log, and never will be.
    pub fn not_logged(&self) -> bool {
        !matches!(self, GroupError::OutcomeUnknown | GroupError::Timeout { .. } | GroupError::Storage(_))
    }
}
