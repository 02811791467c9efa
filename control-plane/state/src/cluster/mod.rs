//! What the cluster knows of itself: its members, authorities, join tokens and administrators.
//!
//! Purpose: decisions that all nodes must take alike: who is a member under which number, whether
//! a join token is still good, which authority signs.
//! Invariants: a node id is given once and never again; a token makes at most one member; among
//! members, names are unique; the signing authority is always one of the trusted; a rejected
//! command changes nothing.
//! Left out: certificates' contents, private keys in the clear, clocks (time is in the commands).
//! A removed node needs no list of the removed to stay out: only members are let in, and ids are
//! not given twice. The list is for people, and bounded.

mod administrators;
mod audit;
mod authority;
mod command;
mod join;
mod members;
mod versions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use provost_types::{Name, Revision};
use serde::{Deserialize, Serialize};

pub use administrators::{AdminTokenHash, MAX_ADMIN_TOKENS};
pub use audit::{AuditCheckpoint, MAX_AUDIT_CHECKPOINTS, MAX_AUDIT_LOGS};
pub use authority::{Authority, CaStep, Rotation};
pub use command::{ClusterCommand, ClusterReply};
pub use join::{JoinToken, MAX_JOIN_TOKEN_LIFE_NS, MAX_JOIN_TOKENS, TokenUse};
pub use members::{MAX_MEMBERS, MAX_REMOVED, Member, RemovedMember};
pub use versions::NodeVersion;

use crate::{Problem, Rejected};

/// The cluster's own facts, beside the resources. Stored form: fields may be added with defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    name: Option<Name>,
    /// The greatest node id ever given; 0: none.
    last_node_id: u64,
    members: BTreeMap<u64, Member>,
    /// Oldest first.
    removed: VecDeque<RemovedMember>,
    /// By their hash.
    join_tokens: BTreeMap<String, JoinToken>,
    authorities: BTreeMap<u64, Authority>,
    /// 0: none.
    signing: u64,
    rotation: Option<Rotation>,
    /// By name.
    admin_tokens: BTreeMap<String, AdminTokenHash>,
    /// 0: as 1.
    version: u32,
    /// By the log's origin.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_checkpoints: BTreeMap<String, AuditCheckpoint>,
}

fn reject(code: &'static str, message: impl Into<String>, hint: &str) -> Rejected {
    Rejected { problems: vec![Problem::of_transaction(code, message).hint(hint)] }
}

/// Lower-case hexadecimal of 32 bytes, the only form of stored hashes.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Cluster {
    /// The cluster's name; `None` before it is initialised.
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The members by id.
    pub fn members(&self) -> &BTreeMap<u64, Member> {
        &self.members
    }

    /// The member of this name.
    pub fn member_named(&self, name: &str) -> Option<(u64, &Member)> {
        self.members.iter().find(|(_, m)| m.name.as_str() == name).map(|(id, m)| (*id, m))
    }

    /// The last members that were removed, oldest first.
    pub fn removed(&self) -> impl Iterator<Item = &RemovedMember> {
        self.removed.iter()
    }

    /// The greatest node id ever given; 0: none.
    pub fn last_node_id(&self) -> u64 {
        self.last_node_id
    }

    /// Join tokens that have not been cleared away, by their hash.
    pub fn join_tokens(&self) -> &BTreeMap<String, JoinToken> {
        &self.join_tokens
    }

    /// The authorities to trust, by id: usually one, two while they change.
    pub fn authorities(&self) -> &BTreeMap<u64, Authority> {
        &self.authorities
    }

    /// The authority that signs; `None` if certificates come from elsewhere.
    pub fn signing(&self) -> Option<(u64, &Authority)> {
        self.authorities.get(&self.signing).map(|a| (self.signing, a))
    }

    /// The change of the authority under way.
    pub fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// Tokens of administrators, by name.
    pub fn admin_tokens(&self) -> &BTreeMap<String, AdminTokenHash> {
        &self.admin_tokens
    }

    /// The certificates of every authority to trust, the signing one first.
    pub fn bundle(&self) -> String {
        let signing = self.signing().map(|(_, a)| a.certificate.as_str());
        let others = self.authorities.iter().filter(|(id, _)| **id != self.signing);
        signing.into_iter().chain(others.map(|(_, a)| a.certificate.as_str())).collect()
    }

    /// What a restored copy begins with, as a cluster that is not yet initialised: no member,
    /// authority, token or administrator of the old one works in it, and no id of the old one is
    /// given again.
    pub fn for_restore(&self) -> Self {
        // What was stored stays readable only for who could read it.
        Self { last_node_id: self.last_node_id, version: self.version, ..Self::default() }
    }

    /// Applies a command at a log index. On `Err` nothing has changed.
    pub fn apply(&mut self, revision: Revision, command: ClusterCommand) -> Result<ClusterReply, Rejected> {
        // A group of one that is no cluster (`provost dev`) holds its audit log's checkpoints too.
        let at_any_time = matches!(command, ClusterCommand::Init { .. } | ClusterCommand::AuditCheckpoints { .. });
        if !at_any_time && self.name.is_none() {
            let hint = "initialise it first";
            return Err(reject("PV-CLUSTER-NOT-INITIALIZED", "the cluster is not initialised", hint));
        }
        match command {
            ClusterCommand::Init { cluster, node_id, node, roles, address, authority, version } => {
                self.initialise(revision, cluster, (node_id, node, roles, address), authority, version)
            }
            ClusterCommand::TokenMade { hash, token, time_ns } => self.token_made(hash, token, time_ns),
            ClusterCommand::TokenUsed { hash, key, address, now_ns } => {
                self.token_used(revision, &hash, &key, address, now_ns)
            }
            ClusterCommand::AddressChanged { node_id, address } => self.address_changed(node_id, address),
            ClusterCommand::NodeRemoved { node_id, time_ns } => self.node_removed(revision, node_id, time_ns),
            ClusterCommand::CaBegin { authority, time_ns, settle_ns } => {
                self.ca_begin(revision, authority, time_ns, settle_ns)
            }
            ClusterCommand::CaCommit { time_ns, force } => self.ca_commit(time_ns, force),
            ClusterCommand::CaFinish { time_ns, force } => self.ca_finish(time_ns, force),
            ClusterCommand::CaResealed { id, old, new } => self.ca_resealed(id, &old, new),
            ClusterCommand::AdminTokenAdded { name, hash, time_ns } => self.admin_token_added(name, hash, time_ns),
            ClusterCommand::AdminTokenRemoved { name } => self.admin_token_removed(&name),
            ClusterCommand::NodeVersion { node_id, version } => self.node_version(node_id, version),
            ClusterCommand::AuditCheckpoints { checkpoints } => self.audit_checkpoints_taken(checkpoints),
        }
    }

    fn initialise(
        &mut self,
        revision: Revision,
        cluster: Name,
        first: (u64, Name, BTreeSet<Name>, String),
        authority: Option<Authority>,
        version: NodeVersion,
    ) -> Result<ClusterReply, Rejected> {
        if let Some(name) = &self.name {
            let text = format!("this is cluster {name} already");
            return Err(reject("PV-CLUSTER-INITIALIZED", text, "a cluster is initialised once"));
        }
        let (node_id, name, roles, address) = first;
        members::check_roles(&roles)?;
        members::check_address(&address)?;
        if node_id <= self.last_node_id {
            let text = format!("node id {node_id} was given before: the last one is {}", self.last_node_id);
            return Err(reject("PV-CLUSTER-NODE-ID", text, "take a greater one"));
        }
        self.name = Some(cluster);
        self.last_node_id = node_id;
        self.members.insert(node_id, Member { name, roles, address, joined: revision, version });
        self.raise_version();
        if let Some(authority) = authority {
            self.authorities.insert(revision.0, authority);
            self.signing = revision.0;
        }
        Ok(ClusterReply::Done)
    }
}
