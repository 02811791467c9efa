//! The data plane of a process, whatever its state, secrets and records come from.

use std::{path::PathBuf, sync::Arc};

use provost_data_serve::{
    Frontend, SealKeys,
    bodies::BodyKeeper,
    definitions::DefinitionKeeper,
    node::{CompileError, Compiled, Node, NodePorts},
    push::{StalenessLimits, StalenessReader},
    quota::Quotas,
    siblings::Siblings,
};
use provost_data_tools::{ConnectionPort, Connections, PackagePort, SecretSource, Toolbox, ToolboxDeps};
use provost_types::{AuditSink, Inference, PrincipalRef, PrivateRange, Snapshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::doors::{AgentConfig, AgentPorts};
use crate::{config::telemetry::TelemetryConfig, telemetry::Exporting};

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
    /// What was seen of tool definitions.
    pub definitions: DefinitionKeeper,
    /// Where relative `sqlite:` paths begin.
    pub data_dir: PathBuf,
    /// Keeps bodies for the log; `None`: nothing is kept of them.
    pub bodies: Option<BodyKeeper>,
    /// The other nodes; `None`: there are none.
    pub siblings: Option<Arc<Siblings>>,
    /// Keeps what users consent to.
    pub connections: Arc<dyn ConnectionPort>,
    /// The control plane's packages of plugins.
    pub packages: Arc<dyn PackagePort>,
    /// Private ranges that plugins may open for themselves.
    pub egress: Vec<PrivateRange>,
    /// Traces of calls, and the node's name in them.
    pub telemetry: (TelemetryConfig, String),
}

/// What calls run under at the start: the state, or none at all.
fn first_state(first: Arc<Snapshot>) -> Result<Compiled, CompileError> {
    Compiled::new(first).or_else(|cause| {
        tracing::error!(
            code = "PV-NODE-REVISION",
            "{cause}; the node refuses the state it was to start with, denies every call, and waits for the next one"
        );
        Compiled::new(Arc::default())
    })
}

/// A data plane that can be asked to serve.
pub struct DataPlane {
    node: Arc<Node>,
    toolbox: Arc<Toolbox>,
    quotas: Arc<Quotas>,
    siblings: Option<Arc<Siblings>>,
    /// `None`: calls are not traced.
    exporting: Option<Exporting>,
}

impl DataPlane {
    /// Compiles the first state. One that does not compile (a damaged disk, or a build that reads it
    /// otherwise than the one that ran it) stops no start: without grants everything is denied until a
    /// state comes that compiles.
    pub fn new(parts: DataPlaneParts) -> anyhow::Result<Self> {
        let DataPlaneParts {
            first,
            secrets,
            audit,
            inference,
            anonymous,
            staleness,
            quotas,
            definitions,
            data_dir,
            bodies,
            siblings,
            connections,
            packages,
            egress,
            telemetry: (telemetry, node_name),
        } = parts;
        let limits = provost_data_tools::Limits { allow_private: egress.into(), ..Default::default() };
        let nodes = siblings.clone().map(|nodes| nodes as Arc<dyn provost_data_tools::Siblings>);
        let connections = Some(Connections::new(connections, secrets.clone()));
        // This very program, also where its file is replaced while it runs.
        let launcher = cfg!(target_os = "linux").then(|| "/proc/self/exe".into());
        let deps = ToolboxDeps {
            secrets,
            inference: inference.clone(),
            data_dir,
            limits,
            siblings: nodes,
            connections,
            launcher,
            packages: Some(packages),
        };
        let toolbox = Toolbox::new(deps);
        if let Some(siblings) = &siblings {
            siblings.attach_toolbox(toolbox.clone());
        }
        let ports = NodePorts { audit, toolbox: toolbox.clone(), inference, anonymous };
        let node = Node::new(ports, first_state(first)?).with_quotas(quotas.clone()).with_definitions(definitions);
        let node = match bodies {
            Some(bodies) => node.with_bodies(bodies),
            None => node,
        };
        let node = match staleness {
            Some((reader, limits)) => node.with_staleness(reader, limits),
            None => node,
        };
        let node = Arc::new(node);
        node.lets_guests_call();
        let exporting = Exporting::start(&telemetry, &node_name)?;
        if let Some(exporting) = &exporting {
            node.traces_to(exporting.tracing().clone());
        }
        Ok(Self { node, toolbox, quotas, siblings, exporting })
    }

    /// The stages of calls.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Serves agents until `stop`.
    pub fn serve(
        &self,
        ports: AgentPorts,
        agents: &AgentConfig,
        seal_keys: Arc<SealKeys>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        if let Some(most) = agents.max_calls {
            self.node.load().limit(most);
        }
        self.node.known_as(&agents.addresses(ports.address()?));
        self.node.seals_with(&seal_keys);
        let frontend = Frontend::new(self.node.clone(), agents.front(seal_keys))?;
        let frontend = frontend.with_schemas(self.node.clone()).with_consents(self.node.clone());
        let frontend = Arc::new(match &self.siblings {
            Some(siblings) => frontend.with_siblings(siblings.clone()),
            None => frontend.with_toolbox(self.toolbox.clone()),
        });
        let (doors, following) = ports.open(agents.tls.as_ref(), agents.client_ca.as_ref())?;
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! { () = following => (), () = stopped.cancelled() => () }
        });
        let stopped = stop.clone();
        tasks.spawn(async move {
            if let Err(cause) = frontend.serve_doors(doors, stopped).await {
                tracing::error!(%cause, "the front end of agents ended");
            }
        });
        Ok(())
    }

    /// Ends the plugins, gives leased units back and sends the last traces, once no call runs any more.
    pub async fn stop(&self) {
        self.toolbox.stop();
        self.quotas.close().await;
        if let Some(exporting) = &self.exporting {
            exporting.close().await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::{Kind, Metadata, Name, PolicySpec, Resource, Revision, Spec, TenantSpec};

    use super::*;

    fn state(cedar: &str) -> Arc<Snapshot> {
        let policy = PolicySpec { description: String::new(), cedar: cedar.to_owned(), mode: Default::default() };
        let specs = [("acme", Spec::Tenant(TenantSpec::default())), ("p", Spec::Policy(policy))];
        let resource = |(name, spec): (&str, Spec)| {
            let tenant = (spec.kind() != Kind::Tenant).then(|| Name::new("acme").unwrap());
            let metadata = Metadata { name: Name::new(name).unwrap(), tenant, labels: Default::default() };
            let resource = Resource { metadata, spec, created: Revision(7), modified: Revision(7) };
            (resource.key(), Arc::new(resource))
        };
        Arc::new(Snapshot { revision: Revision(7), resources: specs.into_iter().map(resource).collect() })
    }

    #[test]
    fn a_first_state_that_does_not_compile_grants_nothing_and_does_not_count_as_run() {
        let good = first_state(state("forbid (principal, action, resource);")).unwrap();
        assert_eq!((good.revision(), good.snapshot().resources.len()), (Revision(7), 2));
        let bad = first_state(state("forbid (principal, action")).unwrap();
        // Revision 0: the same state is tried, refused and reported once the control plane is asked.
        assert_eq!((bad.revision(), bad.snapshot().resources.len()), (Revision(0), 0));
    }
}
