//! The port through which a writer reaches the audit group, wherever its replicas run.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use provost_audit_core::LogId;
use provost_control_raft::{Group, GroupError};
use provost_types::BoxFuture;

use crate::{
    entry::Reply,
    machine::SharedMachine,
    recovery::{OpenCall, read_open_calls},
    state::WriterChain,
};

/// Why the group did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not done, or it is not known whether it was: the same may be sent again.
    #[error("{0}")]
    Again(String),
    /// Sending it again cannot help.
    #[error("{0}")]
    Refused(String),
}

/// Where a writer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterState {
    /// Its last epoch; 0: it has never written.
    pub epoch: u64,
    /// Its place in each log.
    pub chains: BTreeMap<LogId, WriterChain>,
}

/// The audit group as a writer sees it. Each call is one attempt: the writer decides about the next.
pub trait Proposer: Send + Sync + 'static {
    /// Commands that may be in flight at once without overtaking each other.
    fn pipeline(&self) -> usize;

    /// Where a writer stands, after everything that was acknowledged before.
    fn writer_state(self: Arc<Self>, writer: String) -> BoxFuture<'static, Result<WriterState, ProposeError>>;

    /// Has a command logged and gives the machine's reply.
    fn propose(self: Arc<Self>, command: Bytes) -> BoxFuture<'static, Result<Reply, ProposeError>>;

    /// Some of a writer's intents of earlier epochs that have no outcome; none: there are no more.
    fn open_calls(
        self: Arc<Self>,
        writer: String,
        before_epoch: u64,
    ) -> BoxFuture<'static, Result<Vec<OpenCall>, ProposeError>>;
}

/// The group by way of a replica in this process.
#[derive(Clone)]
pub struct LocalProposer {
    pub(crate) group: Group,
    pub(crate) machine: SharedMachine,
    pub(crate) dir: PathBuf,
    pub(crate) departed: Departed,
}

/// Replicas that were taken out a moment ago, by number: they are not added again while the member
/// list still names them. Kept on the leader only; a new leader may add one once more, and then
/// takes it out when the list does not name it any more.
pub(crate) type Departed = Arc<Mutex<BTreeMap<u64, Instant>>>;

impl LocalProposer {
    /// Takes a replica out of the group; on the leader.
    pub(crate) async fn leave(&self, node_id: u64) -> Result<(), GroupError> {
        let metrics = self.group.metrics();
        self.departed.lock().insert(node_id, Instant::now());
        if metrics.voters.contains(&node_id) || metrics.learners.contains(&node_id) {
            self.group.remove(node_id).await.inspect_err(|_| {
                self.departed.lock().remove(&node_id);
            })?;
        }
        Ok(())
    }
}

/// Batches in flight to a local replica, which keeps their order.
const LOCAL_PIPELINE: usize = 4;

impl Proposer for LocalProposer {
    fn pipeline(&self) -> usize {
        LOCAL_PIPELINE
    }

    fn writer_state(self: Arc<Self>, writer: String) -> BoxFuture<'static, Result<WriterState, ProposeError>> {
        Box::pin(async move {
            self.group.read_barrier().await.map_err(failed)?;
            let (epoch, chains) = self.machine.0.lock().writer(&writer);
            Ok(WriterState { epoch, chains })
        })
    }

    fn propose(self: Arc<Self>, command: Bytes) -> BoxFuture<'static, Result<Reply, ProposeError>> {
        Box::pin(async move {
            let proposed = self.group.propose_at_once(command).await.map_err(failed)?;
            Reply::decode(&proposed.reply).map_err(|e| ProposeError::Refused(e.to_string()))
        })
    }

    fn open_calls(
        self: Arc<Self>,
        writer: String,
        before_epoch: u64,
    ) -> BoxFuture<'static, Result<Vec<OpenCall>, ProposeError>> {
        Box::pin(async move {
            self.group.read_barrier().await.map_err(failed)?;
            let orphans = self.machine.0.lock().orphans(&writer, before_epoch);
            let dir = self.dir.clone();
            let read = tokio::task::spawn_blocking(move || read_open_calls(&dir, orphans)).await;
            let read = read.map_err(|e| ProposeError::Again(e.to_string()))?;
            read.map_err(|e| ProposeError::Refused(e.to_string()))
        })
    }
}

/// Repeating is always safe: the machine answers a batch that it has seen.
fn failed(error: GroupError) -> ProposeError {
    match error {
        GroupError::TooLarge { .. } | GroupError::Storage(_) => ProposeError::Refused(error.to_string()),
        _ => ProposeError::Again(error.to_string()),
    }
}
