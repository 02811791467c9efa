//! One control-plane node: its replica of the control group, and what runs around it.

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use provost_control_raft::{Group, GroupConfig, GroupMetrics, Promotion, Retention, Role, Timings, Transport};
use provost_control_state::Member;
use provost_types::{AuditSink, BoxFuture, Revision, Snapshot};
use provost_wire::tls;
use tokio::{
    sync::{RwLock, watch},
    task::AbortHandle,
};

use crate::{
    AdminToken, Admission, ControlError, KeyProvider, LocalFileKey, SecretError, Secrets,
    auth::Authenticator,
    carrier::{self, Carrying},
    machine::{ControlMachine, Published},
    members, reconcile, versions,
};

/// The name of the control group.
pub(crate) const GROUP: &str = "control";
/// The longest wait for a leader at start.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(30);
/// The longest wait for records of changes at a stop; what remains is recorded after the next start.
const RECORDS_LIMIT: Duration = Duration::from_secs(2);

/// How much log is kept. Builds with debug assertions, and no others, keep less by `PROVOST_TEST_CONTROL_KEEP`, so that
/// tests need no long log.
fn retention() -> Retention {
    #[cfg(debug_assertions)]
    if let Some(keep) = std::env::var("PROVOST_TEST_CONTROL_KEEP").ok().and_then(|text| text.parse().ok()) {
        return Retention { snapshot_every_entries: keep, keep_entries: keep, ..Retention::default() };
    }
    Retention::default()
}

/// What a node is told when it is opened.
#[derive(Clone)]
pub struct ControlConfig {
    /// Where everything is kept; made if missing. The node uses `control/` and `secrets.key` in it.
    pub data_dir: PathBuf,
    /// The cluster's name; never changes.
    pub cluster: String,
    /// This node's name, for people.
    pub node_name: String,
    /// This node's id; unique in the cluster and never reused.
    pub node_id: u64,
    /// Wraps the data keys of secrets; `None`: the file `secrets.key` in the data folder.
    pub key_provider: Option<Arc<dyn KeyProvider>>,
    /// How this node reaches its peers; `None`: a group of one, made at the first start.
    pub member: Option<MemberConfig>,
    /// The audit group, where a member that is removed may have a replica.
    pub departures: Option<Arc<dyn Departures>>,
}

/// A group other than the control group whose replicas are members of the cluster.
pub trait Departures: Send + Sync {
    /// Takes a node out of the group before it is no longer let in, so that no quorum waits for it.
    /// The sentence says why that cannot be.
    fn leave(&self, node_id: u64) -> BoxFuture<'_, Result<(), String>>;
}

/// A node that belongs to a cluster, or is about to.
#[derive(Clone)]
pub struct MemberConfig {
    /// Where peers reach this node, `HOST:PORT`.
    pub address: String,
    /// Carries Raft's messages.
    pub transport: Arc<dyn Transport>,
    /// Raft's clocks.
    pub timings: Timings,
    /// Whether this node had a log before: without it, it must not come back under its id.
    pub expect_existing: bool,
    /// When a learner becomes a voter by itself.
    pub promotion: Promotion,
    /// Voters that must remain after a removal.
    pub min_voters: usize,
    /// A voter that has not answered for so long is removed; `None`: never.
    pub remove_dead_after: Option<Duration>,
}

impl ControlConfig {
    /// Node 1 of a cluster, with its secrets under a local key file.
    pub fn new(data_dir: impl Into<PathBuf>, cluster: impl Into<String>, node_name: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster: cluster.into(),
            node_name: node_name.into(),
            node_id: 1,
            key_provider: None,
            member: None,
            departures: None,
        }
    }
}

impl fmt::Debug for ControlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlConfig")
            .field("data_dir", &self.data_dir)
            .field("cluster", &self.cluster)
            .field("node_name", &self.node_name)
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// The revision of its state.
    pub revision: Revision,
    /// Its replica.
    pub group: GroupMetrics,
}

/// A running control-plane node; clones share it.
#[derive(Clone)]
pub struct ControlNode {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: ControlConfig,
    pub(crate) group: Group,
    pub(crate) published: Arc<Published>,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) secrets: Arc<Secrets>,
    /// Held by changes while they are made: shared by those that may be made side by side.
    pub(crate) writing: Arc<RwLock<()>>,
    /// How the records of changes get to the audit log.
    pub(crate) carrying: Carrying,
    /// The task that carries records, keeps the group's replicas as the member list has them, and
    /// members alive.
    following: Mutex<Option<AbortHandle>>,
}

impl ControlNode {
    /// Opens the node. One without peers becomes a group of one and is ready when this returns:
    /// all that was acknowledged before is applied again. A member of a cluster begins to take
    /// part once its messages are carried to it ([`ControlNode::group`]).
    pub async fn open(
        config: ControlConfig,
        admission: Arc<dyn Admission>,
        audit: Arc<dyn AuditSink>,
    ) -> Result<Self, ControlError> {
        let dir = config.data_dir.join(GROUP);
        let storage = |e: io::Error| {
            let text = format!("the control plane's data in {} cannot be used: {e}", dir.display());
            ControlError::new(crate::ErrorKind::Internal, "PV-CTL-STORAGE", text, "check the folder and its owner")
        };
        fs::create_dir_all(&dir).map_err(storage)?;
        let provider = match &config.key_provider {
            Some(provider) => provider.clone(),
            None => local_key(&config)?,
        };
        let (machine, published) = ControlMachine::open(&dir).map_err(storage)?;
        versions::check_own(published.state.load().cluster(), config.node_id)?;
        let mut group_config = GroupConfig::new(config.node_id, config.cluster.clone(), GROUP);
        group_config.retention = retention();
        let group = match &config.member {
            // A member serves what it has applied while it waits for the others.
            Some(member) => {
                group_config.address = member.address.clone();
                group_config.timings = member.timings;
                group_config.expect_existing = member.expect_existing;
                group_config.membership.promotion = Some(member.promotion);
                group_config.membership.min_voters = member.min_voters;
                Group::open_with(&dir, group_config, machine, member.transport.clone()).await?
            }
            None => {
                let group = Group::open(&dir, group_config, machine).await?;
                group.initialize_single().await?;
                group.wait_ready(START_LIMIT).await?;
                group
            }
        };
        let secrets = Arc::new(Secrets::new(provider, published.clone()));
        let writing = Arc::default();
        let is_member = config.member.is_some();
        let following = Mutex::new(None);
        let carrying = Carrying::default();
        let inner = Inner { config, group, published, admission, audit, secrets, writing, carrying, following };
        let node = Self { inner: Arc::new(inner) };
        let following = tokio::spawn(steward(node.clone(), is_member)).abort_handle();
        *node.inner.following.lock().unwrap_or_else(PoisonError::into_inner) = Some(following);
        Ok(node)
    }

    /// This node's replica, for the service that receives its peers' messages.
    pub fn group(&self) -> &Group {
        &self.inner.group
    }

    /// Waits until a leader is known and all that was acknowledged before is applied here.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), ControlError> {
        Ok(self.inner.group.wait_ready(limit).await?)
    }

    /// The snapshots that nodes run on: the present one at once, then each as it is applied.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.published.snapshots.subscribe()
    }

    /// Opens sealed values for the data plane of this process.
    pub fn secrets(&self) -> Arc<Secrets> {
        self.inner.secrets.clone()
    }

    /// Whether this node's key provider opens the cluster's newest data key; `false`: there is none yet. It may ask
    /// the provider, and so block.
    pub fn opens_keys(&self) -> Result<bool, SecretError> {
        self.inner.secrets.opens(&self.inner.published.state.load_full())
    }

    /// How the node stands.
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            cluster: self.inner.config.cluster.clone(),
            node: self.inner.config.node_name.clone(),
            revision: self.inner.published.state.load().revision(),
            group: self.inner.group.metrics(),
        }
    }

    /// The members that keep the audit log: for each the id in its certificate and its address.
    pub fn audit_nodes(&self) -> Vec<(String, String)> {
        let state = self.inner.published.state.load();
        let members = state.cluster().members().iter();
        let members = members.filter(|(_, m)| m.has(tls::Role::AuditLog.as_str()) && !m.address.is_empty());
        // The certificate of a node with the role control-plane has its number.
        let id = |id: &u64, m: &Member| {
            if m.has(tls::Role::ControlPlane.as_str()) { id.to_string() } else { m.name.to_string() }
        };
        members.map(|(number, m)| (id(number, m), m.address.clone())).collect()
    }

    pub(crate) fn authenticator(&self, admins: Vec<AdminToken>) -> Authenticator {
        Authenticator { admins: admins.into(), published: self.inner.published.clone() }
    }

    /// Stops the node after the change being made and, if it leads and the audit log takes them, after
    /// the records of changes. When it returns, its files are closed.
    pub async fn shutdown(&self) -> Result<(), ControlError> {
        let _turn = self.inner.writing.write().await;
        if self.inner.group.metrics().role == Role::Leader && self.inner.carrying.check().is_ok() {
            self.wait_recorded(RECORDS_LIMIT).await;
        }
        if let Some(task) = self.inner.following.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        Ok(self.inner.group.shutdown().await?)
    }
}

/// What a node does by itself, most of it only as the leader.
async fn steward(node: ControlNode, is_member: bool) {
    let members = async {
        if is_member {
            let (following, removing) = (reconcile::follow_members(node.clone()), members::remove_dead(node.clone()));
            let first_key = crate::secrets::make_first_key(node.clone());
            tokio::join!(following, removing, first_key, versions::announce(node.clone()));
        }
    };
    tokio::join!(carrier::carry(node.clone()), members);
}

fn local_key(config: &ControlConfig) -> Result<Arc<dyn KeyProvider>, ControlError> {
    let key = LocalFileKey::open(&config.data_dir.join("secrets.key"));
    let key = key.map_err(|e| ControlError::new(crate::ErrorKind::Internal, e.code(), e.to_string(), ""))?;
    Ok(Arc::new(key))
}
