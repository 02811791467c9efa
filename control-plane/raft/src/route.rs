//! The way from any replica to the leader.
//!
//! A replica asks the leader that it knows, and when that one refuses or cannot be reached, waits
//! for another and asks again, within a bound. The leader answers a forwarded message itself or
//! refuses it: nothing is forwarded twice, so a loop is impossible.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{GroupError, Peer, RpcKind, TransportError, codec, group::GroupCore, network::address_of};

/// Between two tries when no other leader has shown up.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How much longer than the leader itself its asker waits for the answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// Who to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leader {
    /// This node.
    Here,
    /// Another.
    There(Peer),
}

/// Why the leader did not do what it was asked, as it crosses the wire. New variants go last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The receiver does not lead. Nothing was logged.
    NotLeader { leader: Option<u64> },
    /// It leads and no quorum confirms it. Nothing was logged.
    NoQuorum(String),
    /// Too much is in flight. Nothing was logged.
    Busy(String),
    /// It is ending. Nothing was logged.
    Stopped,
    /// The command is larger than its log takes. Nothing was logged.
    TooLarge { bytes: u64, limit: u64 },
    /// The membership cannot be changed so. Nothing was logged.
    Membership(String),
    /// It was logged, and what became of it is not known.
    Unknown,
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::NotLeader { leader } => Refusal::NotLeader { leader },
            GroupError::NoQuorum(why) => Refusal::NoQuorum(why),
            GroupError::Busy(why) => Refusal::Busy(why),
            GroupError::Stopped => Refusal::Stopped,
            GroupError::TooLarge { bytes, limit } => Refusal::TooLarge { bytes: bytes as u64, limit: limit as u64 },
            GroupError::Membership(why) => Refusal::Membership(why),
            _ => Refusal::Unknown,
        }
    }
}

impl From<Refusal> for GroupError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader { leader } => GroupError::NotLeader { leader },
            Refusal::NoQuorum(why) => GroupError::NoQuorum(why),
            Refusal::Busy(why) => GroupError::Busy(why),
            // The leader's end is not this node's.
            Refusal::Stopped => GroupError::NotLeader { leader: None },
            Refusal::TooLarge { bytes, limit } => {
                let size = |n| usize::try_from(n).unwrap_or(usize::MAX);
                GroupError::TooLarge { bytes: size(bytes), limit: size(limit) }
            }
            Refusal::Membership(why) => GroupError::Membership(why),
            Refusal::Unknown => GroupError::OutcomeUnknown,
        }
    }
}

/// One caller's search for a leader that takes its call.
pub(crate) struct Route<'a> {
    core: &'a GroupCore,
    wait: Duration,
    deadline: Instant,
    /// Who leads according to the one that refused last.
    hint: Option<u64>,
}

impl<'a> Route<'a> {
    pub(crate) fn new(core: &'a GroupCore) -> Self {
        let wait = core.config.forwarding.leader_wait();
        Self { core, wait, deadline: Instant::now() + wait, hint: None }
    }

    /// The leader to ask next; waits until one is known.
    pub(crate) async fn leader(&mut self) -> Result<Leader, GroupError> {
        loop {
            if let Some(leader) = self.known()? {
                return Ok(leader);
            }
            self.pause("no leader is known").await?;
        }
    }

    /// Waits after a try, until there is reason for another. Gives the error back when the try may
    /// have had an effect, when another try will not end better, or when the bound is over.
    pub(crate) async fn again(&mut self, error: GroupError) -> Result<(), GroupError> {
        let why = match &error {
            GroupError::NotLeader { leader } => {
                self.hint = *leader;
                error.to_string()
            }
            // What ends the search says that it was the quorum.
            GroupError::NoQuorum(why) => why.clone(),
            _ => return Err(error),
        };
        self.pause(&why).await
    }

    fn known(&mut self) -> Result<Option<Leader>, GroupError> {
        let (here, leader) = {
            let metrics = self.core.metrics.borrow_watched();
            if metrics.running_state.is_err() {
                return Err(GroupError::Stopped);
            }
            (metrics.id, self.hint.take().or(metrics.current_leader))
        };
        let Some(id) = leader else { return Ok(None) };
        if id == here {
            return Ok(Some(Leader::Here));
        }
        // A hint may name a member that this node has not heard of yet.
        let address = address_of(&self.core.metrics, id);
        let group = self.core.config.name.clone();
        Ok(address.map(|address| Leader::There(Peer { id, address, group })))
    }

    async fn pause(&self, why: &str) -> Result<(), GroupError> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(GroupError::NoQuorum(format!("no leader took the call within {:?}: {why}", self.wait)));
        }
        let mut metrics = self.core.metrics.clone();
        let seen = metrics.borrow_watched().current_leader;
        let other_leader = async {
            while metrics.borrow_watched().current_leader == seen {
                if metrics.changed().await.is_err() {
                    // This node is ending: the next look says so. Until then the pause holds.
                    std::future::pending::<()>().await;
                }
            }
        };
        let until = (now + RETRY_PAUSE).min(self.deadline);
        let _ = tokio::time::timeout_at(until, other_leader).await;
        Ok(())
    }
}

impl GroupCore {
    /// Sends a message to the leader. `limit` is how long the leader itself may take.
    ///
    /// [`GroupError::OutcomeUnknown`] when the leader may have got it; [`GroupError::NoQuorum`]
    /// when it certainly did not.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        peer: Peer,
        kind: RpcKind,
        body: bytes::Bytes,
        limit: Duration,
    ) -> Result<A, GroupError> {
        let limit = limit + ANSWER_MARGIN;
        let id = peer.id;
        let call = self.transport.call(peer, kind, body, limit);
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => {
                let answer: Result<A, Refusal> = codec::decode(&answer).map_err(|error| {
                    tracing::warn!(%error, peer = id, "a leader's answer cannot be understood");
                    GroupError::OutcomeUnknown
                })?;
                answer.map_err(GroupError::from)
            }
            Ok(Err(TransportError::Unreachable(why))) => {
                Err(GroupError::NoQuorum(format!("node {id} cannot be reached ({why})")))
            }
            Ok(Err(TransportError::Failed(error))) => {
                tracing::debug!(%error, peer = id, "no answer to a forwarded message");
                Err(GroupError::OutcomeUnknown)
            }
            Err(_) => Err(GroupError::OutcomeUnknown),
        }
    }
}
