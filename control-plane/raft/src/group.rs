//! One replica of one group.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    BasicNode, ReadPolicy, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, Fatal, InitializeError, LinearizableReadError, RaftError},
};
use tokio::sync::{Mutex, Semaphore, watch};

use crate::{
    GroupConfig, GroupError, Machine, NoPeers, RpcKind, Transport,
    adapter::MachineAdapter,
    config, db,
    log_store::{LogStore, fatal},
    network::Network,
    raft_types::{Command, Raft, Types},
    snapshot_file::SnapshotDir,
};

/// Proposals in flight in one group; more wait for a place.
pub const MAX_INFLIGHT_PROPOSALS: usize = 8_192;
/// Bytes of one proposal.
pub const MAX_PROPOSAL_BYTES: usize = 8 << 20;

/// The longest wait for tasks to let go of the files at shutdown.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A committed and applied proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its log index.
    pub index: u64,
    /// What the machine replied.
    pub reply: Vec<u8>,
}

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
}

/// One replica of one group; clones share it.
#[derive(Clone)]
pub struct Group {
    core: Arc<GroupCore>,
}

pub(crate) struct GroupCore {
    raft: Raft,
    config: GroupConfig,
    snapshots: SnapshotDir,
    places: Semaphore,
    /// Bytes received of the snapshot being received.
    receiving: Mutex<u64>,
    /// Held during a membership change: they are made one at a time.
    membership: Mutex<()>,
    /// Closes when log and machine have been dropped.
    closed: watch::Receiver<()>,
}

impl GroupCore {
    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }
    pub(crate) fn node_id(&self) -> u64 {
        self.config.node_id
    }
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }
    pub(crate) fn snapshots(&self) -> &SnapshotDir {
        &self.snapshots
    }
    pub(crate) fn receiving(&self) -> &Mutex<u64> {
        &self.receiving
    }
}

impl Group {
    /// Opens a replica without peers. `dir` gets `raft/` (the log) and `snapshots/`; the machine
    /// keeps its own files where it likes. Must be called within a tokio runtime.
    pub async fn open<M: Machine>(dir: &Path, config: GroupConfig, machine: M) -> Result<Self, GroupError> {
        Self::open_with(dir, config, machine, Arc::new(NoPeers)).await
    }

    /// Opens a replica whose messages go through `transport`.
    pub async fn open_with<M: Machine>(
        dir: &Path,
        config: GroupConfig,
        machine: M,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, GroupError> {
        let raft_config = config::raft_config(&config)?;
        let (open, closed) = watch::channel(());
        let db = db::open(&dir.join("raft"), &config)?;
        let log = LogStore::new(db, &config.name, open.clone())?;
        let snapshots = SnapshotDir::open(dir.join("snapshots"))?;
        let adapter = MachineAdapter::new(Box::new(machine), snapshots.clone(), open)?;
        let network = Network { transport, node_id: config.node_id, group: config.name.clone() };
        let raft = Raft::new(config.node_id, raft_config, network, log, adapter).await.map_err(from_fatal)?;
        tokio::spawn(end_process_on_fatal(raft.clone(), config.name.clone()));
        let core = GroupCore {
            raft,
            config,
            snapshots,
            places: Semaphore::new(MAX_INFLIGHT_PROPOSALS),
            receiving: Mutex::new(0),
            membership: Mutex::new(()),
            closed,
        };
        let group = Self { core: Arc::new(core) };
        group.elect_if_alone().await?;
        Ok(group)
    }

    /// A group of one need not wait for an election timeout: nobody else can lead.
    async fn elect_if_alone(&self) -> Result<(), GroupError> {
        let alone = self.metrics().voters == BTreeSet::from([self.core.config.node_id]);
        if alone {
            self.core.raft.trigger().elect(false).await.map_err(from_fatal)?;
        }
        Ok(())
    }

    /// Makes a pristine replica a group of one. Nothing happens if it already belongs to a group.
    pub async fn initialize_single(&self) -> Result<(), GroupError> {
        let config = &self.core.config;
        self.initialize(BTreeMap::from([(config.node_id, config.address.clone())])).await
    }

    /// Makes pristine replicas a group with these voters and addresses; called on one of them.
    /// Nothing happens if this replica already belongs to a group.
    pub async fn initialize(&self, voters: BTreeMap<u64, String>) -> Result<(), GroupError> {
        let nodes: BTreeMap<u64, BasicNode> =
            voters.into_iter().map(|(id, address)| (id, BasicNode::new(address))).collect();
        match self.core.raft.initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(e)) => Err(GroupError::Membership(e.to_string())),
            Err(RaftError::Fatal(e)) => Err(from_fatal(e)),
        }
    }

    /// Logs a command and waits until it is durable on a quorum and applied here. Concurrent
    /// proposals share fsyncs. Waits for a place when [`MAX_INFLIGHT_PROPOSALS`] are in flight.
    ///
    /// Dropping the future does not withdraw the command.
    pub async fn propose(&self, command: impl Into<Bytes>) -> Result<Proposed, GroupError> {
        let command = command.into();
        if command.len() > MAX_PROPOSAL_BYTES {
            return Err(GroupError::TooLarge { bytes: command.len(), limit: MAX_PROPOSAL_BYTES });
        }
        let _place = self.core.places.acquire().await.map_err(|_| GroupError::Stopped)?;
        match self.core.raft.client_write(Command(command)).await {
            Ok(done) => Ok(Proposed { index: done.log_id.index, reply: done.data }),
            Err(e) => Err(from_write(e)),
        }
    }

    /// Returns once everything committed before this call is applied here, confirmed by a quorum
    /// (ReadIndex; no trust in clocks). Only on the leader. Returns the index read from.
    pub async fn read_barrier(&self) -> Result<u64, GroupError> {
        let raft = &self.core.raft;
        let read = match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(read) => read,
            Err(RaftError::Fatal(e)) => return Err(from_fatal(e)),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(e))) => {
                return Err(GroupError::NotLeader { leader: e.leader_id });
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(e))) => {
                return Err(GroupError::NoQuorum(e.to_string()));
            }
        };
        let state = read.await_ready(raft).await.map_err(from_fatal)?;
        Ok(state.read_log_id().index())
    }

    /// Whether this node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.core.raft.is_leader()
    }

    /// The leader, as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        self.core.raft.metrics().borrow_watched().current_leader
    }

    /// Waits until a leader is known that has committed in its term, and everything that this
    /// node held before a restart is applied again. Serve reads only after this.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<(), GroupError> {
        match self.core.raft.wait_for_recovery(Some(timeout)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(GroupError::Timeout { what: "the election of a leader", after: timeout }),
        }
    }

    /// Where the group stands.
    pub fn metrics(&self) -> GroupMetrics {
        // Cloned at once: a held guard would block Raft's core.
        let metrics = self.core.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        GroupMetrics {
            node_id: metrics.id,
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Learner => Role::Learner,
                ServerState::Shutdown => Role::Stopped,
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
        }
    }

    /// Adds a node that receives the log and does not vote; waits until it has caught up.
    pub async fn add_learner(&self, id: u64, address: String) -> Result<(), GroupError> {
        let _one_at_a_time = self.core.membership.lock().await;
        let added = self.core.raft.add_learner(id, BasicNode::new(address), true).await;
        added.map(drop).map_err(from_write)
    }

    /// Sets the voters; each must be a voter or learner already. Former voters leave the group.
    pub async fn change_voters(&self, voters: BTreeSet<u64>) -> Result<(), GroupError> {
        let _one_at_a_time = self.core.membership.lock().await;
        let changed = self.core.raft.change_membership(voters, false).await;
        changed.map(drop).map_err(from_write)
    }

    /// Takes a snapshot soon, whatever the retention says.
    pub async fn snapshot_now(&self) -> Result<(), GroupError> {
        self.core.raft.trigger().snapshot().await.map_err(from_fatal)
    }

    /// Answers a peer's message that a [`Transport`] carried here.
    pub async fn handle(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, GroupError> {
        self.core.handle(kind, body).await
    }

    /// Stops the replica; what was acknowledged stays. When it returns, the log is closed and the
    /// machine dropped: the folder can be opened again.
    pub async fn shutdown(&self) -> Result<(), GroupError> {
        self.core.places.close();
        let stopped = self.core.raft.shutdown().await;
        stopped.map_err(|e| GroupError::Storage(std::io::Error::other(e)))?;
        let mut closed = self.core.closed.clone();
        // Nothing is ever sent: the wait ends when the last holder is dropped.
        let wait = async move { while closed.changed().await.is_ok() {} };
        let late = GroupError::Timeout { what: "closing the files", after: CLOSE_LIMIT };
        tokio::time::timeout(CLOSE_LIMIT, wait).await.map_err(|_| late)
    }

    pub(crate) fn core(&self) -> &Arc<GroupCore> {
        &self.core
    }
}

/// openraft stops its core on a storage error or a panic and leaves the process running, which
/// would then refuse everything for ever. Ending it lets the supervisor start it afresh.
async fn end_process_on_fatal(raft: Raft, group: String) {
    let mut metrics = raft.metrics();
    // Only the channel is kept: this task must not hold the replica open.
    drop(raft);
    loop {
        let state = metrics.borrow_watched().running_state.clone();
        match state {
            Ok(()) => {}
            Err(Fatal::Stopped) => return,
            Err(e) => fatal(&format!("the Raft core of group {group}"), &e),
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn from_fatal(error: Fatal<Types>) -> GroupError {
    match error {
        Fatal::Stopped | Fatal::Panicked => GroupError::Stopped,
        Fatal::StorageError(e) => GroupError::Storage(std::io::Error::other(e.to_string())),
    }
}

fn from_write(error: RaftError<Types, ClientWriteError<Types>>) -> GroupError {
    match error {
        RaftError::Fatal(e) => from_fatal(e),
        RaftError::APIError(ClientWriteError::ForwardToLeader(e)) => GroupError::NotLeader { leader: e.leader_id },
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => GroupError::OutcomeUnknown,
        RaftError::APIError(e) => GroupError::Membership(e.to_string()),
    }
}
