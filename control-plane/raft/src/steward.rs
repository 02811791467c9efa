//! What a replica does without being asked: it keeps its log within its bytes. And what a leader
//! does: it completes a membership change that a former leader left half made, and promotes
//! learners that have kept up.

use std::{collections::BTreeMap, sync::Weak, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::{GroupMetrics, Promotion, Role, group::GroupCore, membership::Change};

/// Between two rounds.
const ROUND: Duration = Duration::from_millis(500);
/// How long a half-made change may be somebody else's before it is completed here.
const HALF_MADE_LIMIT: Duration = Duration::from_secs(3);

/// Runs until the replica ends. Holds nothing open meanwhile.
pub(crate) async fn run(group: Weak<GroupCore>) {
    let mut steady = Steady::default();
    let mut half_made: Option<Instant> = None;
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(core) = group.upgrade() else { return };
        let (ended, joint) = {
            let metrics = core.metrics.borrow_watched();
            let joint = metrics.membership_config.membership().get_joint_config().len() > 1;
            (metrics.running_state.is_err(), joint)
        };
        if ended {
            return;
        }
        let now = core.metrics();
        bound_log(&core, &now).await;
        if now.role != Role::Leader {
            (steady, half_made) = (Steady::default(), None);
            continue;
        }
        let since = joint.then(|| *half_made.get_or_insert_with(Instant::now));
        half_made = since;
        if since.is_some_and(|since| since.elapsed() >= HALF_MADE_LIMIT) {
            tracing::info!(group = core.name(), "completing a membership change that a former leader began");
            if let Err(error) = core.complete_change().await {
                tracing::warn!(%error, group = core.name(), "the membership change is still half made");
            }
            continue;
        }
        let Some(promotion) = core.config.membership.promotion else { continue };
        for id in steady.observe(&now, promotion, core.config.timings.live_window(), Instant::now()) {
            match core.change_here(Change::Promote { id }).await {
                Ok(_) => tracing::info!(group = core.name(), node = id, "a learner kept up and is a voter now"),
                Err(error) => tracing::warn!(%error, group = core.name(), node = id, "a learner was not promoted"),
            }
        }
    }
}

/// Has a snapshot taken when the log has too many bytes, and then the log before it purged. Asked again in each round
/// until it is so: Raft makes one snapshot at a time, and purges what nobody is being sent.
async fn bound_log(core: &GroupCore, now: &GroupMetrics) {
    let Some(upto) = core.log_bytes.excess(core.config.retention.max_bytes) else { return };
    let asked = match now.snapshot {
        Some(snapshot) if snapshot >= upto => core.raft.trigger().purge_log(upto).await,
        _ => core.raft.trigger().snapshot().await,
    };
    if let Err(error) = asked {
        tracing::debug!(%error, group = core.name(), "the log is longer than it should be");
    }
}

/// Since when each learner has kept up without a break.
#[derive(Default)]
struct Steady(BTreeMap<u64, Instant>);

impl Steady {
    /// Takes a look and returns the learners that have kept up for long enough.
    fn observe(&mut self, now: &GroupMetrics, promotion: Promotion, window: Duration, at: Instant) -> Vec<u64> {
        let near = now.learners.iter().filter(|id| {
            now.followers.get(id).is_some_and(|f| {
                // Without writes nobody falls behind: one that does not answer is not near.
                f.matched.is_some() && f.lag <= promotion.max_lag && f.acked_ago.is_some_and(|ago| ago <= window)
            })
        });
        self.0 = near.map(|id| (*id, self.0.get(id).copied().unwrap_or(at))).collect();
        let stable = Duration::from_millis(promotion.stable_ms);
        self.0.iter().filter(|(_, since)| at.duration_since(**since) >= stable).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::FollowerMetrics;

    fn seen(lag: u64, acked_ms: u64) -> GroupMetrics {
        let follower = FollowerMetrics { matched: Some(9), lag, acked_ago: Some(Duration::from_millis(acked_ms)) };
        GroupMetrics {
            node_id: 1,
            role: Role::Leader,
            term: 1,
            leader: Some(1),
            last_log: Some(9 + lag),
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            voters: BTreeSet::from([1]),
            learners: BTreeSet::from([2]),
            addresses: BTreeMap::new(),
            followers: BTreeMap::from([(2, follower)]),
            quorum_acked_ago: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_learner_is_steady_after_a_time_without_a_break() {
        let promotion = Promotion { max_lag: 250, stable_ms: 10_000 };
        let window = Duration::from_secs(4);
        const NOBODY: [u64; 0] = [];
        let start = Instant::now();
        let mut steady = Steady::default();
        let mut look = |second: u64, lag: u64, acked_ms: u64| {
            steady.observe(&seen(lag, acked_ms), promotion, window, start + Duration::from_secs(second))
        };
        assert_eq!(look(0, 251, 10), NOBODY, "too far behind");
        assert_eq!(look(1, 250, 10), NOBODY);
        assert_eq!(look(10, 0, 10), NOBODY, "nine seconds");
        assert_eq!(look(11, 0, 10), [2]);
        assert_eq!(look(12, 0, 4_001), NOBODY, "silent for too long: it begins again");
        assert_eq!(look(13, 0, 10), NOBODY);
        assert_eq!(look(22, 900, 10), NOBODY, "fell behind: it begins again");
        assert_eq!(look(23, 0, 10), NOBODY);
        assert_eq!(look(33, 0, 10), [2]);
    }
}
