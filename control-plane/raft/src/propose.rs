//! Commands and linearizable reads, from any replica.
//!
//! A command is sent to a leader at most once with unknown fate: it is repeated only when it is
//! certain that the one before it was not logged (the leader could not be reached, or refused).
//! A read has no effect and is repeated after any failure. Commands travel in batches; see
//! [`crate::batch`].

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use openraft::{
    ReadPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
    raft::WriteResponse,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    GroupError, MAX_PROPOSAL_BYTES, Peer, Proposed, RpcKind, codec,
    group::{GroupCore, from_fatal},
    kept::Kept,
    raft_types::{Command, Types},
    route::{Leader, Refusal, Route},
};

/// The leader's answer to a forwarded command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) reply: Vec<u8>,
}

/// The leader's answers to a forwarded batch, in its order.
pub(crate) type Answers = Vec<Result<Applied, Refusal>>;

impl GroupCore {
    pub(crate) async fn propose(self: &Arc<Self>, command: Bytes) -> Result<Proposed, GroupError> {
        check_size(&command)?;
        let place = Arc::new(self.gate.enter(1, command.len(), || self.apply_lag()).await?);
        let mut route = Route::new(self);
        loop {
            let leader = route.leader().await?;
            let is_here = matches!(leader, Leader::Here);
            match self.join_batch(leader, command.clone(), place.clone()).await {
                Err(e) => route.again(e).await?,
                Ok(done) => {
                    if !is_here {
                        // Its caller reads its own write on this node.
                        let deadline = Instant::now() + self.config.forwarding.commit_wait();
                        self.wait_applied(done.index, deadline).await?;
                    }
                    return Ok(done);
                }
            }
        }
    }

    /// A command that stands for many by itself: it is logged or sent at once. Joining a batch would be a task, a channel and
    /// their wake-ups more, with nobody to share them. It may be answered before it is applied here.
    pub(crate) async fn propose_at_once(self: &Arc<Self>, command: Bytes) -> Result<Proposed, GroupError> {
        check_size(&command)?;
        let place = Arc::new(self.gate.enter(1, command.len(), || self.apply_lag()).await?);
        let mut route = Route::new(self);
        loop {
            let leader = route.leader().await?;
            let (core, command) = (self.clone(), command.clone());
            let write = async move {
                match leader {
                    Leader::Here => core.log_one(command).await,
                    Leader::There(peer) => core.forward_one(peer, command).await,
                }
            };
            match Kept::new(write, place.clone()).await {
                Err(e) => route.again(e).await?,
                done => return done,
            }
        }
    }

    /// Answers commands that another replica forwarded: here or not at all. They share batches with
    /// this replica's own, where the group gathers them.
    pub(crate) async fn propose_for_peer(self: &Arc<Self>, commands: Vec<Bytes>) -> Result<Answers, Refusal> {
        commands.iter().try_for_each(check_size)?;
        let bytes = commands.iter().map(Bytes::len).sum();
        let place = Arc::new(self.gate.enter(commands.len(), bytes, || self.apply_lag()).await?);
        let answer = |Proposed { index, reply }| Applied { index, reply };
        let done = if self.config.forwarding.gathers {
            let join = |command| self.join_batch(Leader::Here, command, place.clone());
            let joined: Vec<_> = commands.into_iter().map(join).collect();
            join_all(joined).await
        } else {
            join_all(commands.into_iter().map(|command| self.log_one(command))).await
        };
        Ok(done.into_iter().map(|done| done.map(answer).map_err(Refusal::from)).collect())
    }

    /// Has the leader log a command.
    async fn forward_one(&self, peer: Peer, command: Bytes) -> Result<Proposed, GroupError> {
        self.forward(peer, vec![command]).await.pop().unwrap_or(Err(GroupError::OutcomeUnknown))
    }

    /// Has the leader log commands. One outcome each, in their order; what is committed may not be applied here yet.
    pub(crate) async fn forward(&self, peer: Peer, commands: Vec<Bytes>) -> Vec<Result<Proposed, GroupError>> {
        let sent = commands.len();
        let limit = self.config.forwarding.commit_wait() + Duration::from_millis(self.config.admission.wait_ms);
        let room = commands.iter().map(|command| command.len() + codec::SMALL).sum();
        let answers = match codec::encode_about(&commands, room) {
            Ok(body) => self.ask::<Answers>(peer, RpcKind::Propose, body.into(), limit).await,
            Err(e) => Err(e.into()),
        };
        let mut done = Vec::with_capacity(sent);
        match answers {
            Ok(answers) => {
                let proposed = |Applied { index, reply }| Proposed { index, reply };
                done.extend(answers.into_iter().take(sent).map(|one| one.map(proposed).map_err(GroupError::from)));
            }
            Err(e) => {
                let refusal = Refusal::from(e);
                done.resize_with(sent, || Err(refusal.clone().into()));
            }
        }
        done.resize_with(sent, || Err(GroupError::OutcomeUnknown));
        done
    }

    /// Appends commands to the log of this leader. One outcome each, in their order.
    pub(crate) async fn log_here(&self, commands: Vec<Bytes>) -> Vec<Result<Proposed, GroupError>> {
        let sent = commands.len();
        let deadline = Instant::now() + self.config.forwarding.commit_wait();
        let mut done = Vec::with_capacity(sent);
        let write = self.raft.client_write_many(commands.into_iter().map(Command));
        if let Ok(Ok(mut written)) = tokio::time::timeout_at(deadline, write).await {
            while let Ok(Some(Ok(one))) = tokio::time::timeout_at(deadline, written.next()).await {
                let proposed = |w: WriteResponse<Types>| Proposed { index: w.log_id.index, reply: w.response };
                done.push(one.map(proposed).map_err(from_refused_write));
            }
        }
        // They stay in the log, and commit if a quorum comes back.
        done.resize_with(sent, || Err(GroupError::OutcomeUnknown));
        done
    }

    /// Appends one command to the log of this leader.
    async fn log_one(&self, command: Bytes) -> Result<Proposed, GroupError> {
        let write = self.raft.client_write(Command(command));
        match tokio::time::timeout(self.config.forwarding.commit_wait(), write).await {
            Ok(Ok(written)) => Ok(Proposed { index: written.log_id.index, reply: written.data }),
            Ok(Err(e)) => Err(from_write(e)),
            // It stays in the log, and commits if a quorum comes back.
            Err(_) => Err(GroupError::OutcomeUnknown),
        }
    }

    pub(crate) async fn read_barrier(&self) -> Result<u64, GroupError> {
        let mut route = Route::new(self);
        loop {
            let index = match route.leader().await? {
                Leader::Here => self.read_index().await,
                Leader::There(peer) => {
                    let limit = Duration::from_millis(self.config.timings.election_max_ms);
                    self.ask::<u64>(peer, RpcKind::ReadIndex, Bytes::new(), limit).await.map_err(|e| match e {
                        GroupError::OutcomeUnknown => GroupError::NoQuorum("the leader did not answer".to_owned()),
                        other => other,
                    })
                }
            };
            match index {
                Ok(index) => {
                    self.wait_applied(index, Instant::now() + self.config.forwarding.commit_wait()).await?;
                    return Ok(index);
                }
                Err(e) => route.again(e).await?,
            }
        }
    }

    /// The index from which a read that begins now is linearizable, confirmed by a quorum. Only
    /// on the leader.
    pub(crate) async fn read_index(&self) -> Result<u64, GroupError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(read) => Ok(read.read_log_id().index()),
            Err(RaftError::Fatal(e)) => Err(from_fatal(e)),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(e))) => {
                Err(GroupError::NotLeader { leader: e.leader_id })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(e))) => {
                let members = self.metrics.borrow_watched().membership_config.clone();
                Err(GroupError::NoQuorum(too_few(&members.membership().voter_ids().collect(), &e.got)))
            }
        }
    }

    /// Waits until this node's machine has applied the committed entry `index`.
    async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), GroupError> {
        let mut applied = self.raft.watch_apply_progress();
        let reached = applied.wait_until(move |at| at.as_ref().is_some_and(|id| id.index >= index));
        let after = self.config.forwarding.commit_wait();
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            // The command is committed all the same.
            Ok(Err(_)) => Err(GroupError::Timeout { what: "applying a committed entry on this stopping node", after }),
            Err(_) => Err(GroupError::Timeout { what: "applying a committed entry on this node", after }),
        }
    }
}

/// Who did not answer, as people read it.
fn too_few(voters: &BTreeSet<u64>, answered: &BTreeSet<u64>) -> String {
    let (there, all) = (voters.intersection(answered).count(), voters.len());
    let away: Vec<String> = voters.difference(answered).map(|id| format!("node {id}")).collect();
    match away.as_slice() {
        // While the voters change a quorum of both sets is needed.
        [] => format!("{there} of {all} voters answered, and no quorum of those before or after a change"),
        _ => format!("{there} of {all} voters answered, and not {}", away.join(" and ")),
    }
}

fn check_size(command: &Bytes) -> Result<(), GroupError> {
    if command.len() > MAX_PROPOSAL_BYTES {
        return Err(GroupError::TooLarge { bytes: command.len(), limit: MAX_PROPOSAL_BYTES });
    }
    Ok(())
}

/// What became of an entry that was handed to openraft.
pub(crate) fn from_write(error: RaftError<Types, ClientWriteError<Types>>) -> GroupError {
    match error {
        // Raft's core ended with the entry in its hands.
        RaftError::Fatal(_) => GroupError::OutcomeUnknown,
        RaftError::APIError(e) => from_refused_write(e),
    }
}

fn from_refused_write(error: ClientWriteError<Types>) -> GroupError {
    match error {
        // Refused before it was appended: not the leader, handing over, or without a quorum's
        // recent answer (then without a leader to go to).
        ClientWriteError::ForwardToLeader(e) => GroupError::NotLeader { leader: e.leader_id },
        ClientWriteError::LogEntryDiscarded(_) => GroupError::OutcomeUnknown,
        e => GroupError::Membership(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_answer_is_named() {
        let said = too_few(&BTreeSet::from([1, 3, 4]), &BTreeSet::from([3]));
        assert_eq!(said, "1 of 3 voters answered, and not node 1 and node 4");
    }
}
