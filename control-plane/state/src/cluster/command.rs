//! The commands and their answers: stored forms, so fields may be added with defaults.

use std::collections::BTreeSet;

use provost_types::Name;
use serde::{Deserialize, Serialize};

use super::{AuditCheckpoint, Authority, CaStep, JoinToken, NodeVersion};

/// A change of the cluster's own facts. Times are the proposer's clock, nanoseconds since the
/// Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ClusterCommand {
    /// The cluster begins, with its first node.
    Init {
        /// The cluster's name; never changes.
        cluster: Name,
        /// The first node's id.
        node_id: u64,
        /// Its name.
        node: Name,
        /// Its roles.
        roles: BTreeSet<Name>,
        /// Where peers reach it.
        address: String,
        /// What signs certificates; `None`: they come from elsewhere.
        authority: Option<Authority>,
        /// What the first node speaks, which is the cluster's version from the first moment on.
        #[serde(default)]
        version: NodeVersion,
    },
    /// A join token was made.
    TokenMade {
        /// Of the whole token: 64 hexadecimal digits.
        hash: String,
        /// What it is good for.
        token: JoinToken,
        /// Now.
        time_ns: u64,
    },
    /// A node shows a join token. The first to show it becomes a member; the same node may ask
    /// again, because an answer can be lost.
    TokenUsed {
        /// Of the whole token.
        hash: String,
        /// A hash of the node's public key, which tells it from others.
        key: String,
        /// Where peers reach it; may be empty.
        address: String,
        /// Now.
        now_ns: u64,
    },
    /// A node is reached elsewhere.
    AddressChanged {
        /// Which.
        node_id: u64,
        /// Where.
        address: String,
    },
    /// A node is out for good.
    NodeRemoved {
        /// Which.
        node_id: u64,
        /// Now.
        time_ns: u64,
    },
    /// A second authority is trusted, and signs nothing yet.
    CaBegin {
        /// The new one.
        authority: Authority,
        /// Now.
        time_ns: u64,
        /// How long each step must last, so that every node has renewed in it.
        settle_ns: u64,
    },
    /// The new authority signs from now on; the old one is still trusted.
    CaCommit {
        /// Now.
        time_ns: u64,
        /// Although the step has not lasted long enough.
        force: bool,
    },
    /// The old authority is trusted no more, and its key is dropped.
    CaFinish {
        /// Now.
        time_ns: u64,
        /// Although the step has not lasted long enough.
        force: bool,
    },
    /// An authority's key was sealed again, under another key of the provider.
    CaResealed {
        /// Which.
        id: u64,
        /// What its sealed key must be now.
        old: String,
        /// What it becomes.
        new: String,
    },
    /// An administrator's token.
    AdminTokenAdded {
        /// Its name; new.
        name: String,
        /// Of the whole token: 64 hexadecimal digits.
        hash: String,
        /// Now.
        time_ns: u64,
    },
    /// An administrator's token is no longer good.
    AdminTokenRemoved {
        /// Its name.
        name: String,
    },
    /// A control-plane node says which version it speaks.
    NodeVersion {
        /// Which.
        node_id: u64,
        /// What it speaks.
        version: NodeVersion,
    },
    /// The audit group's leader signed these: the newest of their logs.
    AuditCheckpoints {
        /// One a log.
        checkpoints: Vec<AuditCheckpoint>,
    },
}

/// What a [`ClusterCommand`] answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ClusterReply {
    /// It took effect.
    Done,
    /// The token made a member, now or when the same node asked before.
    Joined {
        /// The node's id.
        node_id: u64,
        /// Its name.
        name: Name,
        /// Its roles.
        roles: BTreeSet<Name>,
    },
    /// The change of the authority stands here now; `None`: it has ended.
    Ca {
        /// The step.
        step: Option<CaStep>,
    },
}
