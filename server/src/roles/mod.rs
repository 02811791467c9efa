//! `provost server`: the roles that one process runs, as its configuration names them.
//!
//! Purpose: give the process an identity, open its parts in the order in which they need each
//! other, serve, and close in reverse.
//! Invariants: nothing is served to other nodes without a certificate of the cluster; a data plane
//! serves before any control plane answers, if it has run before; at the end no call is cut off
//! and the audit log is signed last.

pub mod audit;
mod audit_forward;
mod certificate;
mod control;
mod copies;
mod data;
mod declared;
pub mod epoch;
mod gpus;
mod identity;
pub mod init;
mod manager;
mod models;
pub mod removed;
pub mod run;
mod seal_keys;
mod siblings;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use provost_audit_store::PeerService;
use provost_control_api::identity::{Registry, admit, cut_former_members};
use provost_data_serve::{
    gpus::GpuNodes,
    siblings::{SiblingService, SiblingSlot},
};
use provost_gpu_serve::{BlobService, GpuNode, GpuService};
use provost_types::{Inference, PrincipalRef};
use provost_wire::tls::{self, Identity};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::Routes, transport::Server as GrpcServer};

use crate::{
    audit_retention,
    config::{Role, ServerConfig},
    failure::Failure,
    logins::LoginRecorder,
    node::{data_plane::DataPlane, doors::AgentPorts, keys, metrics},
    simulate,
    tiles::serve::Tiles,
};
use audit::AuditRole;
use certificate::Keeper;
use control::ControlRole;
use data::DataRole;

/// A running process.
pub struct Server {
    identity: Arc<Identity>,
    control: Option<ControlRole>,
    audit: AuditRole,
    data: Option<DataRole>,
    http: Option<SocketAddr>,
    metrics: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
    peers: Peers,
    /// Cancelled when this node learns that it was removed from the cluster.
    removed: CancellationToken,
    /// Where other data-plane nodes find this one's data plane, once it serves.
    siblings: SiblingSlot,
}

impl Server {
    /// Opens the roles and serves. `anonymous`: whom the data plane takes callers without a token
    /// for; `provost dev` only.
    pub async fn start(config: &ServerConfig, anonymous: Option<PrincipalRef>) -> anyhow::Result<Self> {
        keys::make_private_dir(&config.data_dir.join("keys"))?;
        control::check_key_file(config)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        // First of all: who started the process asks there whether it lives, also while it waits to join.
        let metrics = bind(config.metrics, "listen.metrics").await?;
        let (metrics_address, pages) = (metrics.local_addr()?, metrics::Pages::default());
        tasks.spawn(metrics::serve(metrics, pages.clone(), stop.clone()));
        // Before the other listeners: a port that nobody serves yet would keep peers waiting.
        let identity = identity::obtain(config).await?;
        let peer = bind(config.peer, "listen.peer").await?;
        let http = match config.has(Role::DataPlane) {
            true => Some(AgentPorts::bind(config.http, "listen.http", config.agents.tls.as_ref()).await?),
            false => None,
        };
        let admin = match config.has(Role::ControlPlane) {
            true => Some(bind(config.admin, "listen.admin").await?),
            false => None,
        };

        let audit = AuditRole::start(config, &identity);
        let control = match admin {
            Some(admin) => {
                let control = ControlRole::open(config, &identity, &audit).await?;
                let logins = LoginRecorder::start(audit.sink(), stop.clone());
                let beside = simulate::routes(audit.admin_routes(), control.node.clone(), audit.access());
                let nodes = models::OfCluster::new(control.node.clone(), identity.clone());
                let beside = crate::models::routes(beside, Arc::new(nodes), audit.sink());
                control.serve_admin(admin, &identity, (beside, logins), &tasks, &stop)?;
                Some(control)
            }
            None => None,
        };
        // Its models are those of the data plane here, if there is one, and of others if the role says so.
        let models = match config.has(Role::DataPlane) || config.has(Role::GpuNode) {
            true => Some(GpuNode::start(config.gpu.node(config.models.clone(), &config.data_dir))?),
            false => None,
        };
        let mut server = Self {
            identity,
            control,
            audit,
            data: None,
            http: http.as_ref().map(AgentPorts::address).transpose()?,
            metrics: metrics_address,
            tasks,
            stop,
            peers: Peers::default(),
            removed: CancellationToken::new(),
            siblings: SiblingSlot::default(),
        };
        let keeper = Keeper::new(config, &server.identity, server.control.as_ref())?;
        keeper.come_back().await?;
        let replicas = server.serve_peers(config, peer, models.as_ref());
        let running = (&server.tasks, &server.stop);
        server.audit.open(config, &server.identity, server.control.as_ref(), &replicas, running).await?;
        keeper.start(server.control.as_ref(), &server.tasks, &server.stop);
        server.watch_removal(config);
        if let Some(control) = &server.control {
            let watching = control::watch_key(control.node.clone(), config.keys.clone());
            until(watching, &server.tasks, &server.stop);
        }
        let mut all_models = None;
        if let (Some(http), Some(gpu)) = (http, models.clone()) {
            let here: Arc<dyn Inference> = gpu.clone();
            let inference = GpuNodes::new(config.node.clone(), Some(here));
            all_models = Some(inference.clone());
            let audit = server.audit.sink();
            let (identity, keys) = (&server.identity, Some(server.audit.keys()));
            let (control, slot) = (server.control.as_ref(), server.siblings.clone());
            let parts = data::DataParts { config, identity, audit, inference, gpu, anonymous, keys, control, slot };
            let data = DataRole::start(parts, http, &server.tasks, &server.stop).await?;
            server.data = Some(data);
        } else if let Some(gpu) = models.clone() {
            declared::follow(config, &server.identity, gpu, &server.tasks, &server.stop)?;
        }
        if let Some(gpu) = models.as_ref().filter(|_| config.has(Role::GpuNode) && config.gpu.fetch_models) {
            let control = server.control.as_ref();
            copies::follow(config, &server.identity, control, gpu, &server.tasks, &server.stop);
        }
        if let Some(address) = config.audit.listen.filter(|_| config.has(Role::AuditLog)) {
            let listener = bind(address, "audit.listen").await?;
            let tiles = Tiles::new(&config.data_dir.join("audit"), config.audit.readers.clone());
            until(tiles.serve(listener, Some(server.identity.clone())), &server.tasks, &server.stop);
        }
        let roles = metrics::Roles {
            node: server.data.as_ref().map(|d| d.plane.node().clone()),
            control: server.control.as_ref().map(|c| c.node.clone()),
            subscribers: server.control.as_ref().map(|c| c.api.subscribers()),
            gpu: models,
            gpus: all_models,
        };
        let ready = metrics::readiness(roles.control.clone(), server.audit.replica());
        let sampler = metrics::sampler(roles, server.audit.replica());
        let sampler = metrics::with_certificate(sampler, server.identity.clone());
        let sampler = match config.has(Role::AuditLog) {
            true => {
                let rules = config.audit.clone();
                let keeping = audit_retention::run(server.audit.retention(), move |log| rules.keep(log));
                until(keeping, &server.tasks, &server.stop);
                let replica = server.audit.replica();
                audit_forward::start(config, replica, sampler, &server.tasks, &server.stop)?
            }
            false => sampler,
        };
        pages.start(sampler, ready);
        server.tasks.close();
        Ok(server)
    }

    /// The services for other nodes of every role here, on one listener. Gives where replicas of
    /// other groups are added.
    fn serve_peers(
        &mut self,
        config: &ServerConfig,
        listener: TcpListener,
        models: Option<&Arc<GpuNode>>,
    ) -> PeerService {
        let mut routes = Routes::default();
        let mut door = None;
        let replicas = match &self.control {
            Some(control) => {
                let registry: Arc<dyn Registry> = Arc::new(control.node.clone());
                routes = control.api.routes();
                door = Some(admit(registry));
                control.api.peers().clone()
            }
            None => {
                let own = self.audit.own_peers();
                routes = routes.add_service(own.clone().into_server());
                own
            }
        };
        let mut routes = self.audit.routes(config, &self.identity, self.control.as_ref(), routes);
        if config.has(Role::DataPlane) {
            let callers = siblings::DataNodesOnly(audit::callers(config, &self.identity, self.control.as_ref()));
            routes = routes.add_service(SiblingService::server(self.siblings.clone(), Arc::new(callers)));
        }
        if let Some(node) = models {
            let callers = audit::callers(config, &self.identity, self.control.as_ref());
            let here = crate::models::Here::new(node.clone(), config.node.clone());
            routes = routes.add_service(models::NodeModelsService::server(here, callers));
        }
        if let Some(node) = models.filter(|_| config.has(Role::GpuNode)) {
            let callers = gpus::DataPlanesOnly(audit::callers(config, &self.identity, self.control.as_ref()));
            let callers = gpus::OnceTold { callers, node: node.clone() };
            let service = GpuService::new(node.clone(), Arc::new(callers), self.stop.clone());
            routes = routes.add_service(service.server());
            // What runs for data planes ends before the listener does.
            self.tasks.spawn(service.drained());
            let callers = copies::GpuNodesOnly(audit::callers(config, &self.identity, self.control.as_ref()));
            routes = routes.add_service(BlobService::new(node.clone(), Arc::new(callers)).server());
        }
        let incoming = tls::incoming(listener, self.identity.clone(), tls::Limits::default(), door);
        if let Some(control) = &self.control {
            let registry: Arc<dyn Registry> = Arc::new(control.node.clone());
            let cutting = cut_former_members(control.node.snapshots(), registry, incoming.connections());
            until(cutting, &self.tasks, &self.stop);
        }
        let stopped = self.peers.stop.clone().cancelled_owned();
        self.peers.task = Some(tokio::spawn(async move {
            let server = GrpcServer::builder()
                .http2_keepalive_interval(Some(tls::KEEPALIVE_INTERVAL))
                .http2_keepalive_timeout(Some(tls::KEEPALIVE_TIMEOUT))
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, stopped);
            if let Err(cause) = server.await {
                tracing::error!(%cause, "the services for other nodes ended");
            }
        }));
        replicas
    }

    fn watch_removal(&self, config: &ServerConfig) {
        let (identity, dir) = (self.identity.clone(), config.data_dir.join("identity"));
        let control = self.control.as_ref().map(|c| c.node.clone());
        let watching = removed::watch(identity, dir, config.control_plane.clone(), control, self.removed.clone());
        until(watching, &self.tasks, &self.stop);
    }

    /// Cancelled when this node learns that it was removed from the cluster.
    pub fn removed(&self) -> CancellationToken {
        self.removed.clone()
    }

    /// The data plane, if this process has one.
    pub fn data(&self) -> Option<&DataPlane> {
        self.data.as_ref().map(|d| &d.plane)
    }

    /// Where agents connect, if they can.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where metrics are.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Stops: no new calls, those in flight finish, then the parts close in reverse order.
    pub async fn shutdown(self, drain: Duration) -> anyhow::Result<()> {
        if let Some(control) = &self.control {
            control.api.stop();
        }
        self.stop.cancel();
        if tokio::time::timeout(drain, self.tasks.wait()).await.is_err() {
            tracing::warn!("work still ran after {drain:?}; recovery will record open calls as unknown");
        }
        if let Some(data) = self.data {
            data.plane.stop().await;
        }
        // Replicas take part until the last record of this process is durable.
        self.audit.stop_writing().await;
        self.peers.end().await;
        if let Some(control) = self.control {
            control.node.shutdown().await?;
        }
        self.audit.close().await
    }

    /// The audit log as this process reaches it.
    pub fn audit(&self) -> &AuditRole {
        &self.audit
    }
}

/// The listener for other nodes; it outlives the front ends.
#[derive(Default)]
struct Peers {
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

/// Streams of other replicas have no end of their own: they are cut off after so long.
const PEERS_END_LIMIT: Duration = Duration::from_millis(200);

impl Peers {
    async fn end(self) {
        self.stop.cancel();
        let Some(mut task) = self.task else { return };
        if tokio::time::timeout(PEERS_END_LIMIT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Runs a task that has no end of its own.
fn until(task: impl Future<Output = ()> + Send + 'static, tasks: &TaskTracker, stop: &CancellationToken) {
    let stopped = stop.clone();
    tasks.spawn(async move {
        tokio::select! { () = task => (), () = stopped.cancelled() => () }
    });
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|cause| {
        let text = format!("cannot listen on {address} ({key}): {cause}");
        Failure::new("PV-NODE-LISTEN", text, "is another server running there? choose another port").into()
    })
}
