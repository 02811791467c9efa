//! Changes of the membership: one at a time, made by the leader, asked for on any replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use openraft::{BasicNode, ChangeMembers, async_runtime::watch::WatchReceiver};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    Group, GroupError, GroupMetrics, Role, RpcKind, codec,
    group::{GroupCore, from_fatal},
    membership_rules as rules,
    propose::from_write,
    route::{Leader, Route},
};

/// Between two looks at how far a learner has come.
const CATCH_UP_POLL: Duration = Duration::from_millis(200);

/// One change, as it crosses the wire. New variants go last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    AddLearner {
        id: u64,
        address: String,
    },
    Promote {
        id: u64,
    },
    Remove {
        id: u64,
    },
    UpdateAddress {
        id: u64,
        address: String,
    },
    TransferLeader {
        to: u64,
    },
    /// Changes nothing: asks how far behind a member is.
    Lag {
        id: u64,
    },
    /// Exactly these voters; those that leave are removed.
    Voters {
        ids: BTreeSet<u64>,
    },
}

/// Entries that the member lacks, where the leader knows it.
pub(crate) type Lag = Option<u64>;

impl Group {
    /// Adds a node that receives the log and does not vote, and waits until it has caught up or
    /// `patience` is over. Adding it again at the same address changes nothing.
    pub async fn add_learner_within(&self, id: u64, address: String, patience: Duration) -> Result<(), GroupError> {
        self.add_learner_nowait(id, address).await?;
        let deadline = Instant::now() + patience;
        let near = self.core().config.retention.keep_entries;
        loop {
            if self.core().change(Change::Lag { id }).await?.is_some_and(|lag| lag <= near) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(GroupError::Timeout { what: "catching up of the new learner", after: patience });
            }
            tokio::time::sleep(CATCH_UP_POLL).await;
        }
    }

    /// [`Group::add_learner_within`] ten minutes.
    pub async fn add_learner(&self, id: u64, address: String) -> Result<(), GroupError> {
        const CATCH_UP_LIMIT: Duration = Duration::from_secs(600);
        self.add_learner_within(id, address, CATCH_UP_LIMIT).await
    }

    /// Adds a node that receives the log and does not vote; it catches up by itself.
    pub async fn add_learner_nowait(&self, id: u64, address: String) -> Result<(), GroupError> {
        self.core().change(Change::AddLearner { id, address }).await.map(drop)
    }

    /// Makes a learner a voter. Refused while it does not answer or is far behind.
    pub async fn promote(&self, id: u64) -> Result<(), GroupError> {
        self.core().change(Change::Promote { id }).await.map(drop)
    }

    /// Removes a voter or a learner, dead or alive. Refused when fewer voters than configured
    /// would remain, or too few of them answer. The removed node must not come back under its id.
    pub async fn remove(&self, id: u64) -> Result<(), GroupError> {
        self.core().change(Change::Remove { id }).await.map(drop)
    }

    /// Sets the voters; each must be a voter or learner already. Former voters leave the group.
    pub async fn change_voters(&self, voters: BTreeSet<u64>) -> Result<(), GroupError> {
        self.core().change(Change::Voters { ids: voters }).await.map(drop)
    }

    /// Tells the group where a member listens now.
    pub async fn update_address(&self, id: u64, address: String) -> Result<(), GroupError> {
        self.core().change(Change::UpdateAddress { id, address }).await.map(drop)
    }

    /// Hands leadership to a voter, and waits until it leads. Writes pause meanwhile.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), GroupError> {
        self.core().change(Change::TransferLeader { to }).await.map(drop)
    }
}

impl GroupCore {
    /// Has the leader make a change. Like a command it is not repeated when its fate is unknown.
    async fn change(&self, change: Change) -> Result<Lag, GroupError> {
        let body = Bytes::from(codec::encode(&change)?);
        let mut route = Route::new(self);
        loop {
            let done = match route.leader().await? {
                Leader::Here => self.change_here(change.clone()).await,
                // Behind one change that is being made.
                Leader::There(peer) => self.ask(peer, RpcKind::Membership, body.clone(), self.change_wait() * 2).await,
            };
            match done {
                Err(e) => route.again(e).await?,
                done => return done,
            }
        }
    }

    fn change_wait(&self) -> Duration {
        Duration::from_millis(self.config.membership.change_wait_ms)
    }

    /// Makes a change on this node or refuses it.
    pub(crate) async fn change_here(&self, change: Change) -> Result<Lag, GroupError> {
        if let Change::Lag { id } = change {
            return self.lag(id);
        }
        let wait = self.change_wait();
        let busy = || GroupError::Membership("another change is being made; retry when it is done".to_owned());
        let one_at_a_time = tokio::time::timeout(wait, self.membership.lock()).await.map_err(|_| busy())?;
        let made = tokio::time::timeout(wait, self.make(change)).await;
        drop(one_at_a_time);
        // openraft goes on with it: it may still commit.
        made.map_err(|_| GroupError::OutcomeUnknown)?.map(|()| None)
    }

    /// What the leader knows, once everybody has answered a message sent after this call, or none
    /// did for as long as the longest election. Also how long that took: who has not answered
    /// within it is not counted on. A member that died a moment ago still looks alive by its last
    /// answer, and a change that needs it would never commit.
    async fn informed(&self) -> (GroupMetrics, Duration) {
        let began = Instant::now();
        let limit = Duration::from_millis(self.config.timings.election_max_ms);
        loop {
            let (now, since) = (self.metrics(), began.elapsed());
            let heard = now.followers.values().all(|f| f.acked_ago.is_some_and(|ago| ago <= since));
            if now.role != Role::Leader || heard || since >= limit {
                return (now, since);
            }
            tokio::time::sleep(Duration::from_millis(self.config.timings.heartbeat_ms)).await;
        }
    }

    async fn make(&self, change: Change) -> Result<(), GroupError> {
        let (now, window) = self.informed().await;
        if now.role != Role::Leader {
            return Err(GroupError::NotLeader { leader: now.leader });
        }
        let nodes = |id, address| BTreeMap::from([(id, BasicNode::new(address))]);
        let refused = |why: Option<String>| why.map_or(Ok(()), |why| Err(GroupError::Membership(why)));
        let members = match change {
            Change::AddLearner { id, address } => match now.addresses.get(&id) {
                Some(known) if *known == address => return Ok(()),
                Some(known) => return refused(Some(format!("node {id} is a member already, at {known}"))),
                None => ChangeMembers::AddNodes(nodes(id, address)),
            },
            Change::Promote { id } if now.voters.contains(&id) => return Ok(()),
            Change::Promote { id } => {
                refused(rules::against_promotion(&now, id, window))?;
                ChangeMembers::AddVoterIds([id].into())
            }
            Change::Remove { id } if now.learners.contains(&id) => ChangeMembers::RemoveNodes([id].into()),
            Change::Remove { id } => {
                refused(rules::against_removal(&now, id, self.config.membership.min_voters, window))?;
                ChangeMembers::RemoveVoters([id].into())
            }
            Change::UpdateAddress { id, address } => match now.addresses.get(&id) {
                None => return refused(Some(format!("node {id} is not a member"))),
                Some(known) if *known == address => return Ok(()),
                Some(_) => ChangeMembers::SetNodes(nodes(id, address)),
            },
            Change::TransferLeader { to } => {
                refused(rules::against_transfer(&now, to, window))?;
                return self.hand_over(to).await;
            }
            Change::Voters { ids } => ChangeMembers::ReplaceAllVoters(ids),
            Change::Lag { .. } => return Ok(()),
        };
        self.raft.change_membership(members, false).await.map(drop).map_err(from_write)
    }

    /// Completes a change that a former leader left half made. Does nothing while one is in the
    /// making here.
    pub(crate) async fn complete_change(&self) -> Result<(), GroupError> {
        let Ok(_one_at_a_time) = self.membership.try_lock() else { return Ok(()) };
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        let done = self.raft.change_membership(nothing, false);
        match tokio::time::timeout(self.change_wait(), done).await {
            Ok(done) => done.map(drop).map_err(from_write),
            Err(_) => Err(GroupError::OutcomeUnknown),
        }
    }

    async fn hand_over(&self, to: u64) -> Result<(), GroupError> {
        if to == self.node_id() {
            return Ok(());
        }
        self.raft.trigger().transfer_leader(to).await.map_err(from_fatal)?;
        let mut metrics = self.metrics.clone();
        while metrics.borrow_watched().current_leader != Some(to) {
            metrics.changed().await.map_err(|_| GroupError::Stopped)?;
        }
        Ok(())
    }

    fn lag(&self, id: u64) -> Result<Lag, GroupError> {
        let now = self.metrics();
        if now.role != Role::Leader {
            return Err(GroupError::NotLeader { leader: now.leader });
        }
        if id == self.node_id() {
            return Ok(Some(0));
        }
        if !now.addresses.contains_key(&id) {
            return Err(GroupError::Membership(format!("node {id} is not a member")));
        }
        Ok(now.followers.get(&id).filter(|f| f.matched.is_some()).map(|f| f.lag))
    }
}
