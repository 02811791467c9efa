//! The nodes of the cluster.

use std::collections::BTreeSet;

use provost_types::{Name, Revision};
use serde::{Deserialize, Serialize};

use super::{Cluster, ClusterReply, NodeVersion, reject};
use crate::Rejected;

/// Members of one cluster.
pub const MAX_MEMBERS: usize = 10_000;
/// Removed members that are remembered.
pub const MAX_REMOVED: usize = 1_000;
/// Bytes of an address.
const MAX_ADDRESS_BYTES: usize = 300;
/// Roles of one node.
const MAX_ROLES: usize = 16;
/// The role of those that hold a replica: the last of them cannot be removed.
pub(super) const CONTROL_PLANE: &str = "control-plane";
/// The role of those that record changes: nor can the last of them.
const AUDIT_LOG: &str = "audit-log";

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name; unique among members.
    pub name: Name,
    /// Its roles; at least one.
    pub roles: BTreeSet<Name>,
    /// Where peers reach it, `host:port`; empty: nowhere.
    #[serde(default)]
    pub address: String,
    /// The log index at which it became a member.
    pub joined: Revision,
    /// What it said of itself.
    #[serde(default)]
    pub version: NodeVersion,
}

impl Member {
    /// Whether it has a role.
    pub fn has(&self, role: &str) -> bool {
        self.roles.contains(role)
    }
}

/// A node that was a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedMember {
    /// Its id, never given again.
    pub node_id: u64,
    /// Its name, free again.
    pub name: Name,
    /// The log index at which it was removed.
    pub removed: Revision,
    /// When, by the proposer's clock.
    pub time_ns: u64,
}

pub(super) fn check_roles(roles: &BTreeSet<Name>) -> Result<(), Rejected> {
    if roles.is_empty() || roles.len() > MAX_ROLES {
        let text = format!("a node has 1 to {MAX_ROLES} roles, not {}", roles.len());
        return Err(reject("PV-JOIN-ROLE", text, "name its roles"));
    }
    Ok(())
}

pub(super) fn check_address(address: &str) -> Result<(), Rejected> {
    if address.len() > MAX_ADDRESS_BYTES || address.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(reject("PV-JOIN-ADDRESS", "the address is no host and port", "write it as host:port"));
    }
    Ok(())
}

impl Cluster {
    pub(super) fn member_added(&mut self, member: Member) -> Result<u64, Rejected> {
        self.check_name_is_free(&member.name)?;
        check_address(&member.address)?;
        if self.members.len() >= MAX_MEMBERS {
            let text = format!("the cluster has {MAX_MEMBERS} members, the most there can be");
            return Err(reject("PV-JOIN-TOO-MANY", text, "remove nodes that are gone"));
        }
        // Out of reach: one id a command.
        let Some(node_id) = self.last_node_id.checked_add(1) else {
            return Err(reject("PV-CLUSTER-NODE-ID", "no node id is left", ""));
        };
        self.last_node_id = node_id;
        self.members.insert(node_id, member);
        Ok(node_id)
    }

    pub(super) fn check_name_is_free(&self, name: &Name) -> Result<(), Rejected> {
        match self.member_named(name.as_str()) {
            None => Ok(()),
            Some((id, _)) => {
                let text = format!("node {id} has the name {name}");
                Err(reject("PV-JOIN-NAME", text, "remove that node first, or take another name"))
            }
        }
    }

    pub(super) fn address_changed(&mut self, node_id: u64, address: String) -> Result<ClusterReply, Rejected> {
        check_address(&address)?;
        self.member_mut(node_id)?.address = address;
        Ok(ClusterReply::Done)
    }

    pub(super) fn node_removed(
        &mut self,
        revision: Revision,
        node_id: u64,
        time_ns: u64,
    ) -> Result<ClusterReply, Rejected> {
        self.check_not_last(node_id)?;
        if let Some(member) = self.members.remove(&node_id) {
            self.removed.push_back(RemovedMember { node_id, name: member.name, removed: revision, time_ns });
        }
        self.raise_version();
        while self.removed.len() > MAX_REMOVED {
            self.removed.pop_front();
        }
        Ok(ClusterReply::Done)
    }

    /// Why a member cannot be removed: it is the last with a role that the cluster cannot be
    /// without. Without an audit log no change can be made any more, not even to add one.
    pub fn check_not_last(&self, node_id: u64) -> Result<(), Rejected> {
        let Some(member) = self.members.get(&node_id) else { return Err(not_a_member(node_id)) };
        for (role, what) in [(CONTROL_PLANE, "of the control plane"), (AUDIT_LOG, "that keeps the audit log")] {
            if member.has(role) && self.members.values().filter(|m| m.has(role)).count() == 1 {
                let text = format!("node {node_id} is the last {what}");
                return Err(reject("PV-CLUSTER-LAST", text, "add another one first"));
            }
        }
        Ok(())
    }

    pub(super) fn member_mut(&mut self, node_id: u64) -> Result<&mut Member, Rejected> {
        self.members.get_mut(&node_id).ok_or_else(|| not_a_member(node_id))
    }
}

fn not_a_member(node_id: u64) -> Rejected {
    let text = format!("node {node_id} is not a member");
    reject("PV-CLUSTER-NO-NODE", text, "`provost cluster status` lists the members")
}
