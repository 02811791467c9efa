//! Where a group stands, as one replica sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{Instant, RaftMetrics, ServerState};

use crate::raft_types::Types;

/// What a node is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Leads.
    Leader,
    /// Follows a leader and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Receives the log and does not vote.
    Learner,
    /// Ending.
    Stopped,
}

/// Where a group stands, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetrics {
    /// This node.
    pub node_id: u64,
    /// What this node is.
    pub role: Role,
    /// The current term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// Index of the last entry in this node's log.
    pub last_log: Option<u64>,
    /// Index of the last entry that this node knows to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry applied here.
    pub applied: Option<u64>,
    /// Index of the last entry that a snapshot here covers.
    pub snapshot: Option<u64>,
    /// Index of the last entry removed from the log here.
    pub purged: Option<u64>,
    /// The voters.
    pub voters: BTreeSet<u64>,
    /// The learners.
    pub learners: BTreeSet<u64>,
    /// Where the membership says that voters and learners listen.
    pub addresses: BTreeMap<u64, String>,
    /// On the leader: what it knows of the others; elsewhere empty.
    pub followers: BTreeMap<u64, FollowerMetrics>,
    /// On the leader: how long ago it sent the last message that a quorum answered.
    pub quorum_acked_ago: Option<Duration>,
}

/// What a leader knows of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerMetrics {
    /// Index of the last entry that it is known to hold.
    pub matched: Option<u64>,
    /// Entries that it lacks.
    pub lag: u64,
    /// How long ago the last message was sent that it answered.
    pub acked_ago: Option<Duration>,
}

impl GroupMetrics {
    pub(crate) fn new(metrics: &RaftMetrics<Types>) -> Self {
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let role = match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        // A leader that is its own quorum waits for nobody's answer.
        let alone = role == Role::Leader && voters == BTreeSet::from([metrics.id]);
        Self {
            node_id: metrics.id,
            role,
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.as_ref().map(|id| id.index),
            applied: metrics.last_applied.as_ref().map(|id| id.index),
            snapshot: metrics.snapshot.as_ref().map(|id| id.index),
            purged: metrics.purged.as_ref().map(|id| id.index),
            voters,
            learners: membership.learner_ids().collect(),
            addresses: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
            followers: followers(metrics),
            quorum_acked_ago: if alone {
                Some(Duration::ZERO)
            } else {
                metrics.last_quorum_acked.map(|at| at.elapsed())
            },
        }
    }
}

fn followers(metrics: &RaftMetrics<Types>) -> BTreeMap<u64, FollowerMetrics> {
    let Some(replication) = &metrics.replication else { return BTreeMap::new() };
    let heartbeat = metrics.heartbeat.as_ref();
    let others = replication.iter().filter(|(id, _)| **id != metrics.id);
    others
        .map(|(id, matched)| {
            let matched = matched.as_ref().map(|log_id| log_id.index);
            // Indexes start at 0: a log ending at 5 has six entries.
            let entries = |last: Option<u64>| last.map_or(0, |index| index + 1);
            let lag = entries(metrics.last_log_index).saturating_sub(entries(matched));
            let acked = heartbeat.and_then(|h| h.get(id).copied().flatten());
            (*id, FollowerMetrics { matched, lag, acked_ago: acked.map(|at| at.elapsed()) })
        })
        .collect()
}
