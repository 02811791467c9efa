//! Two versions in one cluster, for as long as an upgrade takes.
//!
//! Purpose: a node says which version it speaks, refuses to run where it could not read what is
//! stored, and proposes nothing that another could not read.
//! Left out: what the cluster's version is (the state), who may join (`identity`).

use std::time::Duration;

use provost_control_state::{Cluster, ClusterCommand, NodeVersion};
use provost_wire::wire_version;

use crate::{
    ControlError, ControlNode, ErrorKind,
    identity::{Registry, rejected},
};

/// Between two looks whether the cluster knows what this node speaks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Refuses a command whose stored form needs a later version than every node can read.
pub(crate) fn gate(needs: u32, cluster: &Cluster) -> Result<(), ControlError> {
    // A group of one without members (`provost dev`) is read by this build alone.
    match cluster.name() {
        Some(_) => readable(needs, cluster.version()),
        None => Ok(()),
    }
}

fn readable(needs: u32, cluster: u32) -> Result<(), ControlError> {
    if needs <= cluster {
        return Ok(());
    }
    let text = format!("this needs version {needs}, and the cluster has version {cluster}: a node is older");
    let hint = "upgrade all control-plane nodes; `provost cluster status` shows their versions";
    Err(ControlError::new(ErrorKind::Refused, "PV-CLUSTER-VERSION", text, hint))
}

/// Refuses to open a replica of a state that this build may not be able to go on with.
pub(crate) fn check_own(cluster: &Cluster, node_id: u64) -> Result<(), ControlError> {
    cluster.check_version(node_id, wire_version()).map_err(|e| rejected(e.problems))
}

/// What this build speaks.
pub(crate) fn own() -> NodeVersion {
    NodeVersion { wire: wire_version(), build: env!("CARGO_PKG_VERSION").to_owned() }
}

/// Tells the cluster what this node speaks, once, as soon as it is a member. Runs until it is done.
pub(crate) async fn announce(node: ControlNode) {
    let own = own();
    let node_id = node.inner.config.node_id;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let cluster = Registry::cluster(&node);
        match cluster.members().get(&node_id) {
            Some(member) if member.version == own => return,
            // Not heard of yet.
            None => continue,
            Some(_) => {}
        }
        let command = ClusterCommand::NodeVersion { node_id, version: own.clone() };
        if let Err(error) = Registry::change(&node, command).await {
            tracing::info!(code = error.code(), %error, "the cluster does not know this node's version yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn what_a_member_cannot_read_is_not_proposed() {
        for (needs, cluster, allowed) in [(1, 1, true), (1, 2, true), (2, 2, true), (2, 1, false), (3, 1, false)] {
            match readable(needs, cluster) {
                Ok(()) => assert!(allowed, "{needs} {cluster}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!allowed && error.code() == "PV-CLUSTER-VERSION", "{needs} {cluster}: {text}");
                    assert!(text.contains(&format!("version {needs}")) && text.contains(&format!("version {cluster}")));
                }
            }
        }
    }
}
