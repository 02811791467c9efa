//! One replica of one group: how it is opened, asked and closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    BasicNode,
    async_runtime::watch::WatchReceiver,
    errors::{Fatal, InitializeError, RaftError},
    storage::RaftLogStorage,
};
use tokio::sync::{Mutex, watch};

use crate::{
    GroupConfig, GroupError, GroupMetrics, Machine, NoPeers, RpcKind, Transport,
    adapter::MachineAdapter,
    admission::Gate,
    batch::Batches,
    config, db,
    log_bytes::LogBytes,
    log_store::{LogStore, Open, fatal},
    network::Network,
    raft_types::{MetricsReceiver, Raft, Types},
    recovery,
    serve::Receiving,
    snapshot_file::SnapshotDir,
    steward,
};

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

/// One replica of one group; clones share it.
#[derive(Clone)]
pub struct Group {
    core: Arc<GroupCore>,
}

pub(crate) struct GroupCore {
    pub(crate) raft: Raft,
    pub(crate) config: GroupConfig,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) metrics: MetricsReceiver,
    pub(crate) snapshots: SnapshotDir,
    pub(crate) log_bytes: Arc<LogBytes>,
    pub(crate) gate: Gate,
    pub(crate) batches: Batches,
    /// The snapshot being received.
    pub(crate) receiving: Mutex<Option<Receiving>>,
    /// Held during a membership change: they are made one at a time.
    pub(crate) membership: Mutex<()>,
    /// Closes when log and machine have been dropped.
    closed: watch::Receiver<()>,
}

impl GroupCore {
    pub(crate) fn node_id(&self) -> u64 {
        self.config.node_id
    }
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }
    pub(crate) fn metrics(&self) -> GroupMetrics {
        // Cloned at once: a held guard would block Raft's core.
        let metrics = self.metrics.borrow_watched().clone();
        GroupMetrics::new(&metrics)
    }
    /// Committed entries that wait for the machine.
    pub(crate) fn apply_lag(&self) -> u64 {
        let metrics = self.metrics.borrow_watched();
        let entries = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let committed = entries(metrics.local_committed.as_ref().map(|id| id.index));
        committed.saturating_sub(entries(metrics.last_applied.as_ref().map(|id| id.index)))
    }
}

/// What a replica keeps on its disk.
pub(crate) struct Stores<L> {
    pub(crate) log: L,
    pub(crate) snapshots: SnapshotDir,
    /// Bytes of the log, as that changes.
    pub(crate) bytes: Arc<LogBytes>,
    /// Dropped by all who keep files open when they are done; `closed` then ends.
    pub(crate) open: Open,
    pub(crate) closed: watch::Receiver<()>,
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
        let (open, closed) = watch::channel(());
        let db = db::open(&dir.join("raft"), &config)?;
        let log = LogStore::new(db, &config.name, open.clone())?;
        let (snapshots, bytes) = (SnapshotDir::open(dir.join("snapshots"))?, log.bytes());
        Self::start(config, machine, transport, Stores { log, snapshots, bytes, open, closed }).await
    }

    /// Generic over the log so that a simulation can bring one that forgets what was not synced.
    pub(crate) async fn start<M: Machine, L: RaftLogStorage<Types>>(
        config: GroupConfig,
        machine: M,
        transport: Arc<dyn Transport>,
        stores: Stores<L>,
    ) -> Result<Self, GroupError> {
        let raft_config = config::raft_config(&config)?;
        let Stores { mut log, snapshots, bytes, open, closed } = stores;
        let mut adapter = MachineAdapter::new(Box::new(machine), snapshots.clone(), open)?;
        recovery::reconcile(&mut log, &mut adapter).await?;
        let members = Arc::new(OnceLock::new());
        let network = Network::new(transport.clone(), &config, members.clone());
        let starting = Raft::new(config.node_id, raft_config, network, log, adapter);
        #[cfg(test)]
        let starting = crate::sim::seeded(starting);
        let raft = starting.await.map_err(from_fatal)?;
        let metrics = raft.metrics();
        // Set once: nobody else has the cell yet.
        let _ = members.set(metrics.clone());
        tokio::spawn(end_process_on_fatal(metrics.clone(), config.name.clone()));
        let core = GroupCore {
            raft,
            gate: Gate::new(config.admission),
            batches: Batches::default(),
            config,
            transport,
            metrics,
            snapshots,
            log_bytes: bytes,
            receiving: Mutex::new(None),
            membership: Mutex::new(()),
            closed,
        };
        let group = Self { core: Arc::new(core) };
        tokio::spawn(steward::run(Arc::downgrade(&group.core)));
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

    /// Has a command logged, wherever the leader is, and waits until it is durable on a quorum
    /// and applied here: the caller reads its own write. Concurrent proposals share fsyncs.
    ///
    /// Waits for a place while too much is in flight ([`GroupError::Busy`]), then for a leader
    /// ([`GroupError::NoQuorum`]), both within the bounds of the configuration; nothing has been
    /// logged when one of them ends. [`GroupError::OutcomeUnknown`] when a leader got the command
    /// and its answer did not come: it is never sent twice. [`GroupError::Timeout`] when it is
    /// committed and this node is slow to apply it.
    ///
    /// Dropping the future does not withdraw the command.
    pub async fn propose(&self, command: impl Into<Bytes>) -> Result<Proposed, GroupError> {
        self.core.propose(command.into()).await
    }

    /// The same of a command that is a batch already, and gains nothing by travelling with others: it is logged or sent to
    /// the leader at once. It is durable on a quorum and applied on the leader when this returns; reads on this node see
    /// it after [`Group::read_barrier`].
    ///
    /// Dropping the future does not withdraw the command, which keeps its place among what may be in flight.
    pub async fn propose_at_once(&self, command: impl Into<Bytes>) -> Result<Proposed, GroupError> {
        self.core.propose_at_once(command.into()).await
    }

    /// Returns once everything committed before this call is applied here, confirmed by a quorum
    /// (ReadIndex; no trust in clocks). Any replica answers; the leader is asked for the index.
    /// Returns the index read from.
    pub async fn read_barrier(&self) -> Result<u64, GroupError> {
        self.core.read_barrier().await
    }

    /// Whether this node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.core.raft.is_leader()
    }

    /// The leader, as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        self.core.metrics.borrow_watched().current_leader
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
        self.core.metrics()
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
        self.core.gate.close();
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

/// Between two looks at whether the core still runs.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long a core that vanished may be the runtime's own end.
const END_OF_RUNTIME: Duration = Duration::from_millis(200);

/// openraft stops its core on a storage error or a panic and leaves the process running, which
/// would then refuse everything for ever. Ending it lets the supervisor start it afresh.
async fn end_process_on_fatal(mut metrics: MetricsReceiver, group: String) {
    let what = format!("the Raft core of group {group}");
    loop {
        let state = metrics.borrow_watched().running_state.clone();
        match state {
            Ok(()) => {}
            Err(Fatal::Stopped) => return,
            Err(e) => fatal(&what, &e),
        }
        // The metrics change with every entry; this need not be known at once.
        tokio::time::sleep(LOOK_PAUSE).await;
        if metrics.changed().await.is_err() {
            break;
        }
    }
    // A core that is stopped says so first. One that vanishes has panicked, unless all tasks are
    // being dropped: then this one does not wake up again.
    let last = metrics.borrow_watched().running_state.clone();
    if last.is_ok() {
        tokio::time::sleep(END_OF_RUNTIME).await;
        fatal(&what, &Fatal::<Types>::Panicked);
    }
}

pub(crate) fn from_fatal(error: Fatal<Types>) -> GroupError {
    match error {
        Fatal::Stopped | Fatal::Panicked => GroupError::Stopped,
        Fatal::StorageError(e) => GroupError::Storage(std::io::Error::other(e.to_string())),
    }
}
