//! One control-plane node: its replica of the control group, and what runs around it.

use std::{fmt, fs, io, path::PathBuf, sync::Arc, time::Duration};

use provost_control_raft::{Group, GroupConfig, GroupMetrics};
use provost_types::{AuditSink, Revision, Snapshot};
use tokio::sync::{Mutex, watch};

use crate::{
    AdminToken, Admission, ControlError, KeyProvider, LocalFileKey, Secrets,
    auth::Authenticator,
    machine::{ControlMachine, Published},
};

/// The name of the control group.
const GROUP: &str = "control";
/// The longest wait for a leader at start.
const START_LIMIT: Duration = Duration::from_secs(30);

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
    /// Held by the change being made.
    pub(crate) writing: Arc<Mutex<()>>,
}

impl ControlNode {
    /// Opens the node, makes a pristine one a group of one, and waits until it can serve: all
    /// that was acknowledged before is applied again.
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
        let group_config = GroupConfig::new(config.node_id, config.cluster.clone(), GROUP);
        let group = Group::open(&dir, group_config, machine).await?;
        group.initialize_single().await?;
        group.wait_ready(START_LIMIT).await?;
        let secrets = Arc::new(Secrets::new(provider, published.clone()));
        let writing = Arc::default();
        let inner = Inner { config, group, published, admission, audit, secrets, writing };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The snapshots that nodes run on: the present one at once, then each as it is applied.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.published.snapshots.subscribe()
    }

    /// Opens sealed values for the data plane of this process.
    pub fn secrets(&self) -> Arc<Secrets> {
        self.inner.secrets.clone()
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

    pub(crate) fn authenticator(&self, admins: Vec<AdminToken>) -> Authenticator {
        Authenticator { admins: admins.into(), published: self.inner.published.clone() }
    }

    /// Stops the node after the change being made. When it returns, its files are closed.
    pub async fn shutdown(&self) -> Result<(), ControlError> {
        let _turn = self.inner.writing.lock().await;
        Ok(self.inner.group.shutdown().await?)
    }
}

fn local_key(config: &ControlConfig) -> Result<Arc<dyn KeyProvider>, ControlError> {
    let key = LocalFileKey::open(&config.data_dir.join("secrets.key"));
    let key = key.map_err(|e| ControlError::new(crate::ErrorKind::Internal, e.code(), e.to_string(), ""))?;
    Ok(Arc::new(key))
}
