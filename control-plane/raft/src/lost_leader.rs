//! What a voter does when the connection on which its leader spoke has ended.
//!
//! A leader whose process ended closes its connections; a voter that only counts missed heartbeats finds out much
//! later: it waits for the lease (`election_max_ms`) and then for a random time, so that two voters seldom ask at once.
//! A voter that saw the connection end need not wait at random: it asks when the lease is over, the voters one
//! heartbeat after the other, by their ids.
//!
//! It asks by pre-vote (Raft dissertation, 9.6). A voter that still hears from the leader refuses, and this one does not
//! even ask if the leader came back on another connection: an end that was the network's fault changes nothing. Where a
//! connection does not end, as in a partition, the heartbeats decide as ever.

use std::{sync::Weak, time::Duration};

use crate::{GroupMetrics, group::GroupCore};

/// Beyond the lease: clocks of timers are rounded to milliseconds.
const MARGIN: Duration = Duration::from_millis(5);

/// To be called when a connection of node `peer` has ended on which it had sent entries or heartbeats.
pub(crate) fn connection_ended(group: Weak<GroupCore>, peer: u64) {
    let Some(core) = group.upgrade() else { return };
    let before = core.metrics();
    let Some(turn) = turn(&before, peer) else { return };
    let timings = core.config.timings;
    drop(core);
    let lease = Duration::from_millis(timings.election_max_ms);
    let turns = Duration::from_millis(timings.heartbeat_ms) * turn;
    tokio::spawn(async move {
        tokio::time::sleep(lease + turns + MARGIN).await;
        let Some(core) = group.upgrade() else { return };
        let now = core.metrics();
        if (now.leader, now.term) != (before.leader, before.term) {
            return;
        }
        tracing::info!(
            group = core.name(),
            leader = peer,
            "the leader's connection ended: asking for an election, unless it came back on another"
        );
        // openraft drops it where the lease runs again, and where this replica is no voter any more. An error is this
        // replica's own end.
        let _ = core.raft.trigger().elect(true).await;
    });
}

/// How many voters ask before this one when `peer` is gone; `None` if it does not lead, or this node is no voter.
fn turn(now: &GroupMetrics, peer: u64) -> Option<u32> {
    if now.leader != Some(peer) || now.node_id == peer {
        return None;
    }
    let mut others = now.voters.iter().filter(|voter| **voter != peer);
    others.position(|voter| *voter == now.node_id).and_then(|place| u32::try_from(place).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::Role;

    fn seen(node_id: u64, leader: Option<u64>) -> GroupMetrics {
        GroupMetrics {
            node_id,
            role: Role::Follower,
            term: 3,
            leader,
            last_log: None,
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            voters: BTreeSet::from([2, 4, 6]),
            learners: BTreeSet::from([9]),
            addresses: BTreeMap::new(),
            followers: BTreeMap::new(),
            quorum_acked_ago: None,
        }
    }

    #[test]
    fn voters_ask_one_after_the_other_and_only_for_a_leader() {
        assert_eq!(turn(&seen(2, Some(4)), 4), Some(0));
        assert_eq!(turn(&seen(6, Some(4)), 4), Some(1));
        assert_eq!(turn(&seen(6, Some(2)), 4), None, "another one leads");
        assert_eq!(turn(&seen(6, None), 4), None, "nobody leads: an election is on its way");
        assert_eq!(turn(&seen(4, Some(4)), 4), None, "the leader itself");
        assert_eq!(turn(&seen(9, Some(4)), 4), None, "a learner");
    }
}
