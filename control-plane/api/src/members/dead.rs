//! Voters that stay dead are removed, if the operator asked for it.
//!
//! Purpose: a voter that does not come back counts in every majority; one more failure may then
//! cost the quorum. Whoever leads removes it as an administrator would, with a record.
//! Invariants: never without the configured time; never fewer voters than the configured minimum,
//! nor unless all that would remain answer; one at a time. A leader counts from when it
//! began to lead: it does not know how long the silence was before.
//! Left out: putting another in its place (a node joins by a token only).

use std::{collections::BTreeMap, time::Duration};

use provost_control_raft::{GroupMetrics, Role};
use tokio::time::Instant;

use crate::{Caller, ControlNode};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(crate) async fn remove_dead(node: ControlNode) {
    let Some(member) = &node.inner.config.member else { return };
    let Some(after) = member.remove_dead_after else { return };
    let alive_within = Duration::from_millis(member.timings.election_max_ms * 2);
    let min_voters = member.min_voters;
    let caller = Caller::internal("dead-server-removal");
    let mut silent = Silent::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let metrics = node.inner.group.metrics();
        let Some(id) = silent.observe(&metrics, alive_within, after, min_voters, Instant::now()) else { continue };
        match node.remove_node(&caller, &id.to_string()).await {
            Ok(()) => tracing::warn!(node = id, after_s = after.as_secs(), "a voter that stayed dead was removed"),
            Err(error) => tracing::warn!(node = id, code = error.code(), %error, "a dead voter was not removed"),
        }
    }
}

/// Since when each voter has not answered, as long as this node leads.
#[derive(Default)]
struct Silent(BTreeMap<u64, Instant>);

impl Silent {
    /// Takes a look, and gives the voter to remove now, if there is one.
    fn observe(
        &mut self,
        now: &GroupMetrics,
        alive_within: Duration,
        after: Duration,
        min_voters: usize,
        at: Instant,
    ) -> Option<u64> {
        if now.role != Role::Leader {
            self.0.clear();
            return None;
        }
        let others = now.voters.iter().filter(|id| **id != now.node_id);
        let answers = |id: &u64| now.followers.get(id).and_then(|f| f.acked_ago).is_some_and(|ago| ago <= alive_within);
        let silent: Vec<u64> = others.filter(|id| !answers(id)).copied().collect();
        self.0 = silent.iter().map(|id| (*id, self.0.get(id).copied().unwrap_or(at))).collect();
        let remaining = now.voters.len() - 1;
        // All that would remain must answer: with two dead nobody knows which half is cut off.
        let [id] = silent[..] else { return None };
        let dead = self.0.get(&id).is_some_and(|since| at.duration_since(*since) >= after);
        (dead && remaining >= min_voters.max(2)).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use provost_control_raft::FollowerMetrics;

    use super::*;

    const ALIVE: Duration = Duration::from_secs(4);
    const AFTER: Duration = Duration::from_secs(60);

    /// Node 1 of `voters` leads; these are silent.
    fn group(voters: u64, silent: &[u64]) -> GroupMetrics {
        let acked = |id| (!silent.contains(&id)).then_some(Duration::from_millis(50));
        let follower = |id| (id, FollowerMetrics { matched: Some(9), lag: 0, acked_ago: acked(id) });
        GroupMetrics {
            node_id: 1,
            role: Role::Leader,
            term: 1,
            leader: Some(1),
            last_log: Some(9),
            committed: Some(9),
            applied: Some(9),
            snapshot: None,
            purged: None,
            voters: (1..=voters).collect(),
            learners: BTreeSet::new(),
            addresses: BTreeMap::new(),
            followers: (2..=voters).map(follower).collect(),
            quorum_acked_ago: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_for_long_enough_goes_while_enough_others_answer() {
        let start = Instant::now();
        // Silence of each look, at seconds; the minimum; what is removed at the last.
        for (voters, looks, min, expect) in [
            (5, &[(0, &[4][..]), (59, &[4])][..], 3, None),
            (5, &[(0, &[4]), (60, &[4])], 3, Some(4)),
            (4, &[(0, &[4]), (60, &[4])], 3, Some(4)),
            (3, &[(0, &[3]), (60, &[3])], 3, None),
            (3, &[(0, &[3]), (60, &[3])], 1, Some(3)),
            // One voter would remain: it would be its own majority.
            (2, &[(0, &[2]), (60, &[2])], 1, None),
            (5, &[(0, &[4, 5]), (60, &[4, 5])], 1, None),
            (5, &[(0, &[4, 5]), (60, &[5])], 3, Some(5)),
            (5, &[(0, &[4]), (30, &[]), (60, &[4])], 3, None),
        ] {
            let mut silent = Silent::default();
            let mut last = None;
            for (second, dead) in looks {
                let at = start + Duration::from_secs(*second);
                last = silent.observe(&group(voters, dead), ALIVE, AFTER, min, at);
            }
            assert_eq!(last, expect, "{voters} {looks:?} {min}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_counts_from_its_own_beginning() {
        let (start, mut silent) = (Instant::now(), Silent::default());
        let mut look = |second, role| {
            let metrics = GroupMetrics { role, ..group(5, &[3]) };
            silent.observe(&metrics, ALIVE, AFTER, 3, start + Duration::from_secs(second))
        };
        assert_eq!(look(0, Role::Leader), None);
        assert_eq!(look(30, Role::Follower), None);
        assert_eq!(look(60, Role::Leader), None);
        assert_eq!(look(120, Role::Leader), Some(3));
    }
}
