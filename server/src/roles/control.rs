//! The role control-plane: a replica of the control group, its admin API and its services for nodes.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use provost_control_api::{
    AdminApi, CertificateEnd, ClusterApi, ControlConfig, ControlNode, Departures, Dial, KeyProvider, LocalFileKey,
    Logins, MemberConfig, NoPeers, Peer, Promotion, Timings, Transport, VaultConfig, VaultToken, VaultTransit,
    identity::Registry, peer_transport,
};
use provost_types::AuditSink;
use provost_wire::tls::{self, Expect, Identity};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    service::Routes,
    transport::{Channel, Endpoint},
};

use crate::{
    config::{KeySource, Role, ServerConfig},
    failure::Failure,
    node::adapters::PolicyAdmission,
};

use super::{audit::AuditRole, identity};

/// Between two looks whether there is a data key yet.
const KEY_LOOK_EVERY: Duration = Duration::from_secs(5);

/// The role, running.
pub struct ControlRole {
    /// The replica and what is around it.
    pub node: ControlNode,
    /// Its services for other nodes.
    pub api: ClusterApi,
}

impl ControlRole {
    /// Opens the replica. It serves what it has applied at once, and waits for the others to take
    /// part.
    pub async fn open(config: &ServerConfig, identity: &Arc<Identity>, audit: &AuditRole) -> anyhow::Result<Self> {
        let name = identity.name();
        let node_id = identity::number(config, identity)?;
        let names = Names { by_name: config.tls_dir.is_some(), node: Arc::default() };
        let (dialling, known) = (identity.clone(), names.clone());
        let dialled: Dial = Arc::new(move |peer: &Peer| dial(&dialling, peer, &known));
        let transport = peer_transport(node_id, dialled.clone());
        let marker = config.data_dir.join("identity").join("replica");
        let (sink, departures) = (audit.sink(), Some(audit.departures()));
        let others = Others { transport, expect_existing: marker.exists(), departures, may_make_key: false };
        let node = open(config, name.cluster().as_str(), node_id, others, sink).await?;
        let _ = names.node.set(node.clone());
        mark(&marker, node_id)?;
        let own = identity.clone();
        let certificate_end: CertificateEnd = Arc::new(move || own.expires());
        let names = config.agent_names.clone();
        let api = ClusterApi::start(&node, config.certificate_ttl, names, dialled, certificate_end)?;
        Ok(Self { node, api })
    }

    /// Serves the admin API: plain on loopback, else TLS with the node's certificate.
    pub fn serve_admin(
        &self,
        listener: TcpListener,
        identity: &Arc<Identity>,
        (beside, logins): (Routes, Arc<dyn Logins>),
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let api = AdminApi::new(&self.node, Vec::new())
            .with_routes(beside)
            .with_logins(logins)
            .with_subscribers(self.api.subscribers())
            .with_certifier(self.api.certifier().clone());
        let stopped = stop.clone().cancelled_owned();
        let plain = listener.local_addr()?.ip().is_loopback();
        let identity = identity.clone();
        tasks.spawn(async move {
            let served = if plain {
                api.serve(listener, stopped).await
            } else {
                let incoming = tls::incoming(listener, identity, tls::Limits::default(), None);
                api.serve_incoming(incoming, stopped).await
            };
            if let Err(cause) = served {
                tracing::error!(%cause, "the admin API ended");
            }
        });
        Ok(())
    }
}

/// Opens a replica that nobody reaches: to make a cluster on it. `may_make_key`: nothing is sealed yet, so that a wrapping
/// key that is not there is made.
pub async fn open_alone(
    config: &ServerConfig,
    cluster: &str,
    node_id: u64,
    may_make_key: bool,
    audit: Arc<dyn AuditSink>,
) -> anyhow::Result<ControlNode> {
    let others = Others { transport: Arc::new(NoPeers), expect_existing: false, departures: None, may_make_key };
    open(config, cluster, node_id, others, audit).await
}

/// How a replica stands to the others.
struct Others {
    transport: Arc<dyn Transport>,
    expect_existing: bool,
    departures: Option<Arc<dyn Departures>>,
    /// Whether the wrapping key may be made: on the first node of a new cluster.
    may_make_key: bool,
}

async fn open(
    config: &ServerConfig,
    cluster: &str,
    node_id: u64,
    others: Others,
    audit: Arc<dyn AuditSink>,
) -> anyhow::Result<ControlNode> {
    let Others { transport, expect_existing, departures, may_make_key } = others;
    let control = ControlConfig {
        node_id,
        key_provider: Some(key_provider(&config.keys, may_make_key)?),
        member: Some(MemberConfig {
            address: config.advertise.clone(),
            transport,
            timings: Timings {
                heartbeat_ms: config.heartbeat_ms,
                election_min_ms: config.election_min_ms,
                election_max_ms: config.election_max_ms,
                quorum_loss_probe_ms: (config.election_max_ms * 2).max(1_000),
                ..Timings::default()
            },
            expect_existing,
            min_voters: config.min_voters,
            remove_dead_after: config.remove_dead_after,
            promotion: Promotion { stable_ms: config.promote_after_ms, ..Promotion::default() },
        }),
        departures,
        ..ControlConfig::new(&config.data_dir, cluster, config.node.clone())
    };
    Ok(ControlNode::open(control, Arc::new(PolicyAdmission::default()), audit).await?)
}

/// What wraps the data keys. `may_make`: whether a key file that is not there is made.
pub fn key_provider(keys: &KeySource, may_make: bool) -> anyhow::Result<Arc<dyn KeyProvider>> {
    Ok(match keys {
        KeySource::File { path } => Arc::new(key_file(path, may_make)?),
        KeySource::Vault { address, key, mount, namespace, token_file, ca } => {
            Arc::new(VaultTransit::new(VaultConfig {
                address: address.clone(),
                mount: mount.clone(),
                key_name: key.clone(),
                namespace: namespace.clone(),
                token: match token_file {
                    Some(path) => VaultToken::File(path.clone()),
                    None => VaultToken::Env("VAULT_TOKEN".to_owned()),
                },
                ca: ca.clone(),
            })?)
        }
    })
}

fn key_file(path: &Path, may_make: bool) -> anyhow::Result<LocalFileKey> {
    let opened = if may_make { LocalFileKey::open(path) } else { LocalFileKey::open_present(path) };
    opened.map_err(|cause| {
        let hint = "`keys.path` must be a copy of the file that the cluster was made with, mode 600, on every \
                    control-plane and data-plane node; only `provost cluster init` of a new cluster makes one";
        Failure::new(cause.code(), cause.to_string(), hint).into()
    })
}

/// Refuses to go on without the key file, before a join token is used up for nothing.
pub fn check_key_file(config: &ServerConfig) -> anyhow::Result<()> {
    let opens_secrets = config.has(Role::ControlPlane) || config.has(Role::DataPlane);
    match &config.keys {
        KeySource::File { path } if opens_secrets => key_file(path, false).map(drop),
        KeySource::File { .. } | KeySource::Vault { .. } => Ok(()),
    }
}

/// Says at the start what else the first secret that is needed would say. A node that joins has a state only after a while.
pub async fn watch_key(node: ControlNode, keys: KeySource) {
    // Vault is asked when it is needed.
    if matches!(keys, KeySource::Vault { .. }) {
        return;
    }
    loop {
        match node.opens_keys() {
            Ok(true) => return,
            Ok(false) => tokio::time::sleep(KEY_LOOK_EVERY).await,
            Err(error) => {
                let next = "put the key file that the other nodes have at keys.path, and start this node again";
                tracing::error!(code = error.code(), %error, next, "this node cannot open the cluster's secrets");
                return;
            }
        }
    }
}

/// How peers are called in their certificates.
#[derive(Clone)]
struct Names {
    /// An operator certifies nodes by name, the cluster's CA replicas by number.
    by_name: bool,
    /// Knows the member list once it is open.
    node: Arc<OnceLock<ControlNode>>,
}

impl Names {
    /// A replica whose name is not known yet is any control-plane node: messages carry the number of
    /// the one that they are for, and another refuses them.
    fn expect(&self, id: u64) -> Expect {
        if !self.by_name {
            return Expect::control_plane(id);
        }
        let any = Expect::role(tls::Role::ControlPlane);
        let name = self.node.get().and_then(|node| Some(node.cluster().members().get(&id)?.name.clone()));
        match name {
            Some(name) => any.id(name.as_str()),
            None => any,
        }
    }
}

/// A channel to a peer's replica. An address that is none leads nowhere, and Raft tries again.
fn dial(identity: &Arc<Identity>, peer: &Peer, names: &Names) -> Channel {
    tls::channel(identity.clone(), &peer.address, names.expect(peer.id)).unwrap_or_else(|cause| {
        tracing::warn!(node = peer.id, address = %peer.address, %cause, "the peer's address cannot be used");
        Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
    })
}

/// Notes, durably, that this node has had a log: without it, it must not come back under its id.
pub fn mark(path: &Path, node_id: u64) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{node_id}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
