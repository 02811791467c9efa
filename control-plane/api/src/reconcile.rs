//! The group's replicas follow the member list: whoever leads adds, moves and removes them.
//!
//! The list is the wish and is replicated; the group's membership is brought to it, one change at a
//! time. Who joins or removes a node also changes the group at once; this finishes what a crash
//! left half done. It is slow to add, because a removal takes the replica out before the member.

use std::time::Duration;

use provost_control_raft::{GroupError, GroupMetrics, Role};
use provost_control_state::Cluster;
use provost_wire::tls;

use crate::ControlNode;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A member without a replica is given one after so many looks.
const ADD_AFTER: u32 = 5;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Add { id: u64, address: String },
    Move { id: u64, address: String },
    Remove { id: u64 },
}

/// Runs until it is aborted.
pub(crate) async fn follow_members(node: ControlNode) {
    let mut missing = (0, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let metrics = node.inner.group.metrics();
        if metrics.role != Role::Leader {
            continue;
        }
        let state = node.inner.published.state.load_full();
        let Some(step) = next(state.cluster(), &metrics) else { continue };
        if let Step::Add { id, .. } = step {
            missing = if missing.0 == id { (id, missing.1 + 1) } else { (id, 1) };
            if missing.1 < ADD_AFTER {
                continue;
            }
        }
        if let Err(error) = take(&node, &step).await {
            tracing::warn!(code = error.code(), %error, ?step, "the group does not follow the member list yet");
        }
    }
}

async fn take(node: &ControlNode, step: &Step) -> Result<(), GroupError> {
    let group = &node.inner.group;
    match step.clone() {
        Step::Add { id, address } => group.add_learner_nowait(id, address).await,
        Step::Move { id, address } => group.update_address(id, address).await,
        Step::Remove { id } => group.remove(id).await,
    }
}

fn next(cluster: &Cluster, group: &GroupMetrics) -> Option<Step> {
    // A cluster that was never initialised is a group of one without a list.
    cluster.name()?;
    let wanted = cluster.members().iter().filter(|(_, m)| m.has(tls::Role::ControlPlane.as_str()));
    for (&id, member) in wanted {
        let is_there = group.voters.contains(&id) || group.learners.contains(&id);
        let address = member.address.clone();
        if !is_there {
            return Some(Step::Add { id, address });
        }
        if group.addresses.get(&id).is_some_and(|known| *known != address) {
            return Some(Step::Move { id, address });
        }
    }
    let known = |id: &u64| cluster.members().contains_key(id);
    let mut replicas = group.voters.iter().chain(&group.learners);
    replicas.find(|id| !known(id)).map(|id| Step::Remove { id: *id })
}
