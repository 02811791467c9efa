//! Which version everybody can read.
//!
//! Control-plane nodes say which version they speak. The cluster's version is the least that all of
//! them have had at once; it never falls, because records of it may have been stored since. What
//! needs a later version is not proposed ([`Cluster::version`]); who speaks an earlier one is not a
//! replica any more.

use serde::{Deserialize, Serialize};

use super::{Cluster, ClusterReply, members::CONTROL_PLANE, reject};
use crate::Rejected;

/// Bytes of the text that names a build.
const MAX_BUILD_BYTES: usize = 64;

/// What a node said of itself when it started last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVersion {
    /// The version of what it says and stores.
    pub wire: u32,
    /// Its build, for people; empty: it has not said yet.
    #[serde(default)]
    pub build: String,
}

impl Default for NodeVersion {
    fn default() -> Self {
        Self { wire: FIRST, build: String::new() }
    }
}

/// Before anybody said anything.
const FIRST: u32 = 1;

impl Cluster {
    /// The version that every control-plane node can read: nothing of a later one may be proposed.
    pub fn version(&self) -> u32 {
        self.version.max(FIRST)
    }

    /// Why a node of this version cannot take part. `node_id`: which, if it is a member.
    pub fn check_version(&self, node_id: u64, wire: u32) -> Result<(), Rejected> {
        let cluster = self.version();
        if wire < cluster {
            let text = format!("the node speaks version {wire}, and the cluster stores records of version {cluster}");
            return Err(reject("PV-CLUSTER-VERSION", text, "start it with the build that the other nodes run"));
        }
        let others = self.members.iter().filter(|(id, m)| **id != node_id && m.has(CONTROL_PLANE));
        let Some((oldest, member)) = others.min_by_key(|(_, m)| m.version.wire) else { return Ok(()) };
        if wire > member.version.wire + 1 {
            let (theirs, name) = (member.version.wire, &member.name);
            let text = format!("the node speaks version {wire}, and node {oldest} ({name}) version {theirs}");
            return Err(reject("PV-CLUSTER-VERSION", text, "upgrade all control-plane nodes one version at a time"));
        }
        Ok(())
    }

    pub(super) fn node_version(&mut self, node_id: u64, version: NodeVersion) -> Result<ClusterReply, Rejected> {
        if version.build.len() > MAX_BUILD_BYTES || version.wire == 0 {
            return Err(reject("PV-CLUSTER-VERSION", "the version has not the form of one", ""));
        }
        self.check_version(node_id, version.wire)?;
        self.member_mut(node_id)?.version = version;
        self.raise_version();
        Ok(ClusterReply::Done)
    }

    /// After each change of who is a member, or of what one speaks.
    pub(super) fn raise_version(&mut self) {
        let least = self.members.values().filter(|m| m.has(CONTROL_PLANE)).map(|m| m.version.wire).min();
        self.version = self.version().max(least.unwrap_or(FIRST));
    }
}
