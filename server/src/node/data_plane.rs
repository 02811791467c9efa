//! The data plane of a process, whatever its state, secrets and records come from.

use std::{path::PathBuf, sync::Arc};

use provost_data_serve::{
    Frontend, FrontendConfig,
    node::{Compiled, Node, NodePorts},
    push::{StalenessLimits, StalenessReader},
    quota::Quotas,
};
use provost_data_tools::{SecretSource, Toolbox, ToolboxDeps};
use provost_types::{AuditSink, Inference, PrincipalRef, Snapshot};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What it is composed of.
pub struct DataPlaneParts {
    /// The state to begin with.
    pub first: Arc<Snapshot>,
    /// Opens sealed values.
    pub secrets: Arc<dyn SecretSource>,
    /// Where records go.
    pub audit: Arc<dyn AuditSink>,
    /// Models.
    pub inference: Arc<dyn Inference>,
    /// Whether, and as whom, calls without a token are served.
    pub anonymous: Option<PrincipalRef>,
    /// How old the state is and may be, where the control plane is elsewhere.
    pub staleness: Option<(StalenessReader, StalenessLimits)>,
    /// Leases of quotas.
    pub quotas: Arc<Quotas>,
    /// Where relative `sqlite:` paths begin.
    pub data_dir: PathBuf,
}

/// A data plane that can be asked to serve.
pub struct DataPlane {
    node: Arc<Node>,
    toolbox: Arc<Toolbox>,
    quotas: Arc<Quotas>,
}

impl DataPlane {
    /// Compiles the first state.
    pub fn new(parts: DataPlaneParts) -> anyhow::Result<Self> {
        let DataPlaneParts { first, secrets, audit, inference, anonymous, staleness, quotas, data_dir } = parts;
        let limits = provost_data_tools::Limits::default();
        let toolbox = Toolbox::new(ToolboxDeps { secrets, inference: inference.clone(), data_dir, limits });
        let ports = NodePorts { audit, toolbox: toolbox.clone(), inference, anonymous };
        let node = Node::new(ports, Compiled::new(first)?).with_quotas(quotas.clone());
        let node = match staleness {
            Some((reader, limits)) => node.with_staleness(reader, limits),
            None => node,
        };
        Ok(Self { node: Arc::new(node), toolbox, quotas })
    }

    /// The stages of calls.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Serves agents until `stop`.
    pub fn serve(
        &self,
        http: TcpListener,
        session_key: [u8; 32],
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let frontend = Frontend::new(self.node.clone(), FrontendConfig::new(session_key))?;
        let frontend = Arc::new(frontend.with_schemas(self.node.clone()));
        let stopped = stop.clone();
        tasks.spawn(async move {
            if let Err(cause) = frontend.serve(http, stopped).await {
                tracing::error!(%cause, "the HTTP front end ended");
            }
        });
        Ok(())
    }

    /// Ends the plugins and gives leased units back, once no call runs any more.
    pub async fn stop(&self) {
        self.toolbox.stop();
        self.quotas.close().await;
    }
}
