//! Commands and linearizable reads, from any replica.
//!
//! A command is sent to a leader at most once with unknown fate: it is repeated only when it is
//! certain that the one before it was not logged (the leader could not be reached, or refused).
//! A read has no effect and is repeated after any failure.

use std::time::Duration;

use bytes::Bytes;
use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
};
use serde::{Deserialize, Serialize};

use crate::{
    GroupError, MAX_PROPOSAL_BYTES, Proposed, RpcKind,
    group::{GroupCore, from_fatal},
    raft_types::{Command, Types},
    route::{Leader, Route},
};

/// The leader's answer to a forwarded command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) reply: Vec<u8>,
}

impl GroupCore {
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Proposed, GroupError> {
        check_size(&command)?;
        let _place = self.gate.enter(command.len(), || self.apply_lag()).await?;
        let mut route = Route::new(self);
        loop {
            let done = match route.leader().await? {
                Leader::Here => self.log_here(command.clone()).await,
                Leader::There(peer) => {
                    let limit =
                        self.config.forwarding.commit_wait() + Duration::from_millis(self.config.admission.wait_ms);
                    match self.ask::<Applied>(peer, RpcKind::Propose, command.clone(), limit).await {
                        Ok(Applied { index, reply }) => {
                            self.wait_applied(index).await?;
                            Ok(Proposed { index, reply })
                        }
                        Err(e) => Err(e),
                    }
                }
            };
            match done {
                Err(e) => route.again(e).await?,
                done => return done,
            }
        }
    }

    /// Answers a command that another replica forwarded: here or not at all.
    pub(crate) async fn propose_for_peer(&self, command: Bytes) -> Result<Applied, GroupError> {
        check_size(&command)?;
        let _place = self.gate.enter(command.len(), || self.apply_lag()).await?;
        let Proposed { index, reply } = self.log_here(command).await?;
        Ok(Applied { index, reply })
    }

    async fn log_here(&self, command: Bytes) -> Result<Proposed, GroupError> {
        let write = self.raft.client_write(Command(command));
        match tokio::time::timeout(self.config.forwarding.commit_wait(), write).await {
            Ok(Ok(done)) => Ok(Proposed { index: done.log_id.index, reply: done.data }),
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
                    self.wait_applied(index).await?;
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
                Err(GroupError::NoQuorum(e.to_string()))
            }
        }
    }

    /// Waits until this node's machine has applied the committed entry `index`.
    async fn wait_applied(&self, index: u64) -> Result<(), GroupError> {
        let mut applied = self.raft.watch_apply_progress();
        let reached = applied.wait_until(move |at| at.as_ref().is_some_and(|id| id.index >= index));
        let after = self.config.forwarding.commit_wait();
        match tokio::time::timeout(after, reached).await {
            Ok(Ok(_)) => Ok(()),
            // The command is committed all the same.
            Ok(Err(_)) => Err(GroupError::Timeout { what: "applying a committed entry on this stopping node", after }),
            Err(_) => Err(GroupError::Timeout { what: "applying a committed entry on this node", after }),
        }
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
        // Refused before it was appended: not the leader, handing over, or without a quorum's
        // recent answer (then without a leader to go to).
        RaftError::APIError(ClientWriteError::ForwardToLeader(e)) => GroupError::NotLeader { leader: e.leader_id },
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => GroupError::OutcomeUnknown,
        RaftError::APIError(e) => GroupError::Membership(e.to_string()),
    }
}
