//! What speaks against a change of the membership. Pure: facts in, a reason or none out.
//!
//! Raft itself would make any of these changes and then be without a quorum, which only restoring
//! a backup heals.

use std::{collections::BTreeSet, time::Duration};

use crate::GroupMetrics;

/// Entries that a learner may be behind when it is promoted by hand. A voter that is further
/// behind would hold up commits as soon as another one fails.
const MAX_PROMOTED_LAG: u64 = 5_000;

/// Members whose answer is younger than `window`, and this node.
fn alive(now: &GroupMetrics, window: Duration) -> BTreeSet<u64> {
    let answering = now.followers.iter().filter(|(_, f)| f.acked_ago.is_some_and(|ago| ago <= window));
    answering.map(|(id, _)| *id).chain([now.node_id]).collect()
}

/// The sentence for a set of voters without a living majority.
fn no_majority(of: &str, voters: &BTreeSet<u64>, alive: &BTreeSet<u64>) -> Option<String> {
    let answering = voters.intersection(alive).count();
    let needed = voters.len() / 2 + 1;
    (answering < needed).then(|| format!("of the {} {of} only {answering} answer and {needed} must", voters.len()))
}

pub(crate) fn against_removal(now: &GroupMetrics, id: u64, min_voters: usize, window: Duration) -> Option<String> {
    if !now.voters.contains(&id) {
        return Some(format!("node {id} is not a member"));
    }
    let mut remaining = now.voters.clone();
    remaining.remove(&id);
    let minimum = min_voters.max(1);
    if remaining.len() < minimum {
        return Some(format!("{} voters would remain and {minimum} must", remaining.len()));
    }
    let alive = alive(now, window);
    no_majority("voters", &now.voters, &alive).or_else(|| no_majority("voters that would remain", &remaining, &alive))
}

pub(crate) fn against_promotion(now: &GroupMetrics, id: u64, window: Duration) -> Option<String> {
    if !now.learners.contains(&id) {
        return Some(format!("node {id} is not a learner"));
    }
    let alive = alive(now, window);
    let follower = now.followers.get(&id).filter(|f| f.matched.is_some() && alive.contains(&id));
    let Some(follower) = follower else { return Some(format!("node {id} does not answer")) };
    if follower.lag > MAX_PROMOTED_LAG {
        return Some(format!("node {id} is {} entries behind; at most {MAX_PROMOTED_LAG} are allowed", follower.lag));
    }
    let mut with = now.voters.clone();
    with.insert(id);
    no_majority("voters", &now.voters, &alive).or_else(|| no_majority("voters that there would be", &with, &alive))
}

pub(crate) fn against_transfer(now: &GroupMetrics, to: u64, window: Duration) -> Option<String> {
    if !now.voters.contains(&to) {
        return Some(format!("node {to} is not a voter"));
    }
    (!alive(now, window).contains(&to)).then(|| format!("node {to} does not answer"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{FollowerMetrics, Role};

    const WINDOW: Duration = Duration::from_secs(4);

    /// Node 1 leads; `members`: id, votes, answers, lag.
    fn group(members: &[(u64, bool, bool, u64)]) -> GroupMetrics {
        let of = |votes: bool| members.iter().filter(|m| m.1 == votes).map(|m| m.0).collect::<BTreeSet<u64>>();
        let others = members.iter().filter(|m| m.0 != 1);
        let followers = others.map(|&(id, _, answers, lag)| {
            let acked_ago = Some(if answers { Duration::from_millis(100) } else { Duration::from_secs(60) });
            (id, FollowerMetrics { matched: Some(100), lag, acked_ago })
        });
        GroupMetrics {
            node_id: 1,
            role: Role::Leader,
            term: 1,
            leader: Some(1),
            last_log: Some(100),
            committed: Some(100),
            applied: Some(100),
            snapshot: None,
            purged: None,
            voters: of(true),
            learners: of(false),
            addresses: BTreeMap::new(),
            followers: followers.collect(),
            quorum_acked_ago: Some(Duration::ZERO),
        }
    }

    const V: bool = true;
    const UP: bool = true;

    #[test]
    fn a_removal_leaves_enough_voters_that_answer() {
        let three = [(1, V, UP, 0), (2, V, UP, 0), (3, V, UP, 0)];
        let one_dead = [(1, V, UP, 0), (2, V, UP, 0), (3, V, false, 0)];
        let two_dead = [(1, V, UP, 0), (2, V, false, 0), (3, V, false, 0)];
        let five_two_dead = [(1, V, UP, 0), (2, V, UP, 0), (3, V, UP, 0), (4, V, false, 0), (5, V, false, 0)];
        let four_two_dead = [(1, V, UP, 0), (2, V, UP, 0), (3, V, false, 0), (4, V, false, 0)];
        for (members, id, min, expect) in [
            (&three[..], 3, 1, None),
            (&three, 1, 1, None),
            (&three, 3, 3, Some("2 voters would remain and 3 must")),
            (&three, 9, 1, Some("not a member")),
            (&one_dead, 3, 2, None),
            // Removing the living one leaves one of two.
            (&one_dead, 2, 1, Some("of the 2 voters that would remain only 1 answer and 2 must")),
            (&two_dead, 3, 1, Some("of the 3 voters only 1 answer and 2 must")),
            (&five_two_dead, 5, 3, None),
            (&four_two_dead, 4, 1, Some("of the 4 voters only 2 answer and 3 must")),
            (&[(1, V, UP, 0)], 1, 0, Some("0 voters would remain and 1 must")),
        ] {
            let why = against_removal(&group(members), id, min, WINDOW);
            match expect {
                None => assert_eq!(why, None, "{members:?} {id}"),
                Some(part) => assert!(why.as_deref().is_some_and(|w| w.contains(part)), "{members:?} {id}: {why:?}"),
            }
        }
    }

    #[test]
    fn a_promoted_learner_answers_and_is_near() {
        let base = [(1, V, UP, 0), (2, V, false, 0), (3, V, UP, 0)];
        for (learner, expect) in [
            ((4, false, UP, 0), None),
            ((4, false, UP, 5_000), None),
            ((4, false, UP, 5_001), Some("5001 entries behind")),
            ((4, false, false, 0), Some("does not answer")),
            ((5, false, UP, 0), Some("node 4 is not a learner")),
        ] {
            let members: Vec<_> = base.into_iter().chain([learner]).collect();
            let why = against_promotion(&group(&members), 4, WINDOW);
            match expect {
                None => assert_eq!(why, None, "{learner:?}"),
                Some(part) => assert!(why.as_deref().is_some_and(|w| w.contains(part)), "{learner:?}: {why:?}"),
            }
        }
        // A second voter for a group whose quorum is gone cannot be committed.
        let lost = [(1, V, UP, 0), (2, V, false, 0), (4, false, UP, 0)];
        assert!(against_promotion(&group(&lost), 4, WINDOW).is_some());
    }

    #[test]
    fn leadership_goes_to_a_voter_that_answers() {
        let now = group(&[(1, V, UP, 0), (2, V, UP, 0), (3, V, false, 0), (4, false, UP, 0)]);
        let refused = |to| against_transfer(&now, to, WINDOW).is_some();
        assert_eq!([1, 2, 3, 4, 5].map(refused), [false, false, true, true, true]);
    }
}
