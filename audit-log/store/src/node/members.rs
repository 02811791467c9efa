//! The group's replicas follow the list of members that have the role.

use std::{collections::BTreeMap, time::Duration};

use provost_control_raft::{GroupError, Role};

use super::AuditNode;

/// A replica that was taken out is not added again for so long: the member list follows.
const AWAY: Duration = Duration::from_secs(20);

impl AuditNode {
    /// One step towards a group of exactly these members (number and address), if this node leads.
    /// True: it is so.
    pub async fn follow(&self, members: &BTreeMap<u64, String>) -> Result<bool, GroupError> {
        let metrics = self.metrics();
        if metrics.role != Role::Leader {
            return Ok(true);
        }
        let away = {
            let mut departed = self.inner.departed.lock();
            departed.retain(|_, since| since.elapsed() < AWAY);
            departed.clone()
        };
        for (&id, address) in members.iter().filter(|(id, _)| !away.contains_key(id)) {
            if !metrics.voters.contains(&id) && !metrics.learners.contains(&id) {
                self.group().add_learner_nowait(id, address.clone()).await?;
                return Ok(false);
            }
            if metrics.addresses.get(&id).is_some_and(|known| known != address) {
                self.group().update_address(id, address.clone()).await?;
                return Ok(false);
            }
        }
        let gone = metrics.voters.iter().chain(&metrics.learners).find(|id| !members.contains_key(id));
        match gone {
            Some(id) => self.group().remove(*id).await.map(|()| false),
            None => Ok(true),
        }
    }

    /// Takes a replica out of the group for good, before it is no longer let in; on the leader.
    pub(crate) async fn leave(&self, node_id: u64) -> Result<(), GroupError> {
        self.proposer().leave(node_id).await
    }
}
