//! Roles composed into one process.
//!
//! Purpose: open the parts in the order in which they need each other (audit log, control plane,
//! GPU node, plugins, front ends) and close them in reverse.
//! Invariants: nothing is served before the first revision is compiled; at the end no call is cut
//! off and the audit log is signed last.

pub mod activation;
pub mod adapters;
pub mod data_plane;
pub mod doors;
pub mod held;
pub mod keys;
pub mod metrics;
mod own;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use provost_audit_store::{AuditLog, AuditLogConfig};
use provost_control_api::{AdminApi, AdminToken, Caller, ControlConfig, ControlNode, SourceFile};
use provost_data_serve::{SealKeys, bodies::BodyKeeper, definitions::DefinitionKeeper, quota::Quotas};
use provost_gpu_serve::{DeviceChoice, GpuNode};
use provost_types::{AuditSink, Name, PrincipalRef, Revision, Snapshot};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    audit_admin::{self, AuditAccess, Nowhere},
    config::{self, AuditSettings},
    failure::Failure,
    logins::LoginRecorder,
    models, simulate,
    tiles::{TilesConfig, serve::Tiles},
    witness::ask::WitnessAddress,
};
use data_plane::{DataPlane, DataPlaneParts};
use doors::{AgentConfig, AgentPorts};
use own::OwnNode;

/// A change made by this process waits this long for its own data plane to run it.
const ACTIVATION_LIMIT: Duration = Duration::from_secs(20);

/// What a node is told.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Agents connect here.
    pub http: SocketAddr,
    /// Admin gRPC.
    pub admin: SocketAddr,
    /// Prometheus metrics.
    pub metrics: SocketAddr,
    /// Models.
    pub models_dir: Option<PathBuf>,
    /// What they compute on, whatever the environment says.
    pub device: Option<DeviceChoice>,
    /// Serve calls without a token as this tenant's `anonymous`.
    pub anonymous: Option<PrincipalRef>,
    /// Everything on disk.
    pub data_dir: PathBuf,
    /// This node.
    pub node_name: String,
    /// The cluster.
    pub cluster: String,
    /// Who is asked to cosign the cluster log's checkpoints.
    pub witnesses: Vec<WitnessAddress>,
    /// Where tiles are served, if anywhere.
    pub tiles: Option<TilesConfig>,
    /// How agents are served.
    pub agents: AgentConfig,
}

/// Where a running node listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Agents.
    pub http: SocketAddr,
    /// Admin gRPC.
    pub admin: SocketAddr,
    /// Metrics.
    pub metrics: SocketAddr,
}

/// The listeners, bound before anything else is opened: a taken port is said at once.
struct Listeners {
    http: AgentPorts,
    admin: TcpListener,
    metrics: TcpListener,
}

/// A running node with every role.
pub struct Node {
    control: ControlNode,
    audit: AuditLog,
    data: DataPlane,
    gpu: Arc<GpuNode>,
    models: models::Here,
    addresses: Addresses,
    admin_token: String,
    witnesses: Vec<WitnessAddress>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    /// Opens everything and serves.
    pub async fn start(config: NodeConfig) -> anyhow::Result<Self> {
        let AuditSettings(privacy) = config::audit_of_environment().map_err(|problem| {
            let text = format!("{} {}", problem.key, problem.message);
            Failure::new("PV-CONFIG-INVALID", text, "change PROVOST_AUDIT_BODIES or PROVOST_AUDIT_IDENTITIES")
        })?;
        let telemetry = config::telemetry::of_environment().map_err(|problem| {
            let text = format!("{} {}", problem.key, problem.message);
            Failure::new("PV-CONFIG-INVALID", text, "change PROVOST_OTLP or PROVOST_OTLP_RATIO")
        })?;
        let mut gpu = config::gpu::of_environment().map_err(|problem| {
            let text = format!("{} {}", problem.key, problem.message);
            Failure::new(
                "PV-CONFIG-INVALID",
                text,
                "change the variables of the environment that begin with PROVOST_GPU_",
            )
        })?;
        gpu.device = config.device.unwrap_or(gpu.device);
        let listeners = Listeners::bind(&config).await?;
        let tiles = match &config.tiles {
            Some(tiles) if !tiles.listen.ip().is_loopback() => {
                let text = format!("{} is no address of this machine alone", tiles.listen);
                let hint = "`provost dev` serves tiles without TLS: use 127.0.0.1, or run `provost server`";
                return Err(Failure::new("PV-CONFIG-INVALID", text, hint).into());
            }
            Some(tiles) => Some((bind(tiles.listen, "the audit tiles").await?, tiles.readers.clone())),
            None => None,
        };
        let keys = config.data_dir.join("keys");
        keys::make_private_dir(&keys)?;
        let audit_config = AuditLogConfig {
            cluster: config.cluster.clone(),
            ..AuditLogConfig::new(&config.data_dir, config.node_name.clone())
        };
        let audit = provost_audit_store::open(audit_config).await?;
        let sink: Arc<dyn AuditSink> = Arc::new(audit.clone());

        let control_config = ControlConfig::new(&config.data_dir, config.cluster.clone(), config.node_name.clone());
        let admission = Arc::new(adapters::PolicyAdmission::default());
        let control = ControlNode::open(control_config, admission, sink.clone()).await?;
        let holder: Arc<dyn held::Holder> = Arc::new(held::Local(control.clone()));
        held::at_start(audit.node(), &*holder).await?;

        let inference = GpuNode::start(gpu.node(config.models_dir.clone(), &config.data_dir))?;
        let first = control.snapshots().borrow().clone();
        models::declare(&inference, first.clone()).await;
        let epoch = crate::roles::epoch::next(&config.data_dir.join("epoch"))?;
        let quotas = Quotas::start(Arc::new(adapters::LocalLeases(control.clone())), config.node_name.clone(), epoch);
        let data = DataPlane::new(DataPlaneParts {
            siblings: None,
            first,
            secrets: Arc::new(adapters::ControlSecrets(control.secrets())),
            audit: sink,
            inference: inference.clone(),
            anonymous: config.anonymous.clone(),
            staleness: None,
            quotas,
            definitions: DefinitionKeeper::start(
                Arc::new(adapters::LocalDefinitions(control.clone())),
                config.node_name.clone(),
            ),
            data_dir: config.data_dir.clone(),
            bodies: Some(BodyKeeper::new(audit.subject_keys(), privacy)),
            connections: Arc::new(adapters::LocalConnections {
                control: control.clone(),
                node: config.node_name.clone(),
            }),
            packages: Arc::new(adapters::LocalPackages(control.clone())),
            egress: Vec::new(),
            telemetry: (telemetry, config.node_name.clone()),
        })?;

        let addresses = listeners.addresses()?;
        let admin_token = keys::admin_token(&keys.join("admin-token"))?;
        let node = Self {
            control,
            audit: audit.clone(),
            data,
            models: models::Here::new(inference.clone(), config.node_name.clone()),
            gpu: inference,
            addresses,
            admin_token,
            witnesses: config.witnesses,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        if let Some((listener, readers)) = tiles {
            let serving = Tiles::new(audit.dir(), readers).serve(listener, None);
            let stopped = node.stop.clone();
            node.tasks.spawn(async move {
                tokio::select! { () = serving => (), () = stopped.cancelled() => () }
            });
        }
        let holding = held::run(audit.node().clone(), holder);
        let stopped = node.stop.clone();
        node.tasks.spawn(async move {
            tokio::select! { () = holding => (), () = stopped.cancelled() => () }
        });
        node.serve(listeners, &config.agents, SealKeys::own(keys::session_key(&keys.join("session.key"))?))?;
        Ok(node)
    }

    fn serve(&self, listeners: Listeners, agents: &AgentConfig, seal_keys: Arc<SealKeys>) -> anyhow::Result<()> {
        self.data.serve(listeners.http, agents, seal_keys, &self.tasks, &self.stop)?;
        let following = activation::follow(self.control.snapshots(), self.data.node().clone(), self.gpu.clone());
        let stopped = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! { () = following => (), () = stopped.cancelled() => () }
        });

        let control = self.control.clone();
        let admins = vec![AdminToken::of("admin", &self.admin_token)];
        let stopped = self.stop.clone().cancelled_owned();
        let access = AuditAccess {
            sink: Arc::new(self.audit.clone()),
            node: Arc::new(OnceLock::from(self.audit.node().clone())),
            elsewhere: Arc::new(Nowhere),
            judges: Arc::default(),
        };
        let beside = audit_admin::routes(access.clone());
        let beside = models::routes(beside, Arc::new(self.models.clone()), Arc::new(self.audit.clone()));
        let api = AdminApi::new(&control, admins)
            .with_routes(simulate::routes(beside, control.clone(), access))
            .with_subscribers(Arc::new(OwnNode { control: control.clone(), node: self.data.node().clone() }))
            .with_logins(LoginRecorder::start(Arc::new(self.audit.clone()), self.stop.clone()));
        self.tasks.spawn(async move {
            if let Err(cause) = api.serve(listeners.admin, stopped).await {
                tracing::error!(%cause, "the admin API ended");
            }
        });

        let asking = crate::witness::ask::run(self.audit.node().clone(), self.witnesses.clone());
        let stopped = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! { () = asking => (), () = stopped.cancelled() => () }
        });

        let sampler = {
            let audit = self.audit.clone();
            let roles = metrics::Roles {
                node: Some(self.data.node().clone()),
                control: Some(self.control.clone()),
                subscribers: None,
                gpu: Some(self.gpu.clone()),
                gpus: None,
            };
            metrics::sampler(roles, move || Some(audit.node().clone()))
        };
        let (pages, audit) = (metrics::Pages::default(), self.audit.clone());
        pages.start(sampler, metrics::readiness(Some(self.control.clone()), move || Some(audit.node().clone())));
        self.tasks.spawn(metrics::serve(listeners.metrics, pages, self.stop.clone()));
        self.tasks.close();
        Ok(())
    }

    /// Applies resources as this process and waits until its data plane runs them.
    pub async fn apply(&self, documents: Vec<SourceFile>, message: &str) -> anyhow::Result<()> {
        let report = self.control.apply(&Caller::internal("provost dev"), &documents, message, false).await?;
        self.wait_active(report.revision).await
    }

    /// Makes a token for a principal, without an end.
    pub async fn create_token(&self, tenant: &Name, principal: &Name) -> anyhow::Result<String> {
        let caller = Caller::internal("provost dev");
        let made = self.control.token_create(&caller, tenant, principal, None, "").await?;
        self.wait_active(made.revision).await?;
        Ok(made.token.expose_secret().to_owned())
    }

    /// Whether the token authenticates somebody now.
    pub fn knows_token(&self, token: &str) -> bool {
        self.data.node().knows_token(token)
    }

    async fn wait_active(&self, revision: Revision) -> anyhow::Result<()> {
        let active = async {
            while self.data.node().active_revision() < revision {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(ACTIVATION_LIMIT, active).await.map_err(|_| {
            let text = format!("revision {revision} did not become active");
            anyhow::Error::new(Failure::new("PV-NODE-ACTIVATION", text, "see the log above"))
        })
    }

    /// The state that this node runs.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.control.snapshots().borrow().clone()
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The token for the admin API.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Stops: no new calls, those in flight finish, then the parts close in reverse order.
    pub async fn shutdown(self, drain: Duration) -> anyhow::Result<()> {
        self.stop.cancel();
        if tokio::time::timeout(drain, self.tasks.wait()).await.is_err() {
            tracing::warn!("calls still ran after {drain:?}; recovery will record them as unknown");
        }
        self.data.stop().await;
        self.control.shutdown().await?;
        self.audit.close().await?;
        Ok(())
    }
}

impl Listeners {
    async fn bind(config: &NodeConfig) -> anyhow::Result<Self> {
        Ok(Self {
            http: AgentPorts::bind(config.http, "--http", config.agents.tls.as_ref()).await?,
            admin: bind(config.admin, "the admin API").await?,
            metrics: bind(config.metrics, "the metrics").await?,
        })
    }

    fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            http: self.http.address()?,
            admin: self.admin.local_addr()?,
            metrics: self.metrics.local_addr()?,
        })
    }
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|cause| {
        Failure::new(
            "PV-NODE-LISTEN",
            format!("cannot listen on {address} for {what}: {cause}"),
            "is another server running there? choose another port with --http",
        )
        .into()
    })
}
