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
    /// Leadership changed after the command was logged: it may or may not take effect.
    #[error("leadership changed while the command was in flight: it may or may not take effect; read before retrying")]
    OutcomeUnknown,
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
            GroupError::Config(_) => "PV-RAFT-CONFIG",
            GroupError::Storage(_) => "PV-RAFT-STORAGE",
            GroupError::NotLeader { .. } => "PV-RAFT-NOT-LEADER",
            GroupError::OutcomeUnknown => "PV-RAFT-OUTCOME-UNKNOWN",
            GroupError::NoQuorum(_) => "PV-RAFT-NO-QUORUM",
            GroupError::TooLarge { .. } => "PV-RAFT-TOO-LARGE",
            GroupError::Timeout { .. } => "PV-RAFT-TIMEOUT",
            GroupError::Membership(_) => "PV-RAFT-MEMBERSHIP",
            GroupError::Wire(_) => "PV-RAFT-WIRE",
            GroupError::Stopped => "PV-RAFT-STOPPED",
        }
    }
}
