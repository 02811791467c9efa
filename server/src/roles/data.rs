//! The role data-plane: configuration by push, secrets opened here, calls served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use provost_control_api::{SealedSource, Secrets};
use provost_data_serve::{
    bodies::BodyKeeper,
    connections::GrpcConnections,
    definitions::{DefinitionKeeper, DefinitionPort, GrpcDefinitions, ReportFailed},
    gpus::GpuNodes,
    node::Node,
    packages::GrpcPackages,
    push::{Activate, Dial, DialError, HealthCounts, NackProblem, PushClient, PushConfig, Pushed, StalenessLimits},
    quota::{GrpcLeases, LeasePort, LeaseUnavailable, Quotas},
    siblings::{SiblingSlot, Siblings},
};
use provost_gpu_serve::GpuNode;
use provost_types::{AuditSink, BoxFuture, PrincipalRef, Resource, ResourceKey, SubjectKeys};
use provost_wire::{
    governance::ReportDefinitionsRequest,
    node::{LeaseRequest, LeaseResponse},
    tls::{self, Expect, Identity},
};
use tokio::sync::watch;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::transport::Channel;

use super::{
    certificate,
    control::{ControlRole, key_provider},
    epoch, gpus,
    seal_keys::SealKeyring,
    siblings, until,
};
use crate::{
    config::ServerConfig,
    models,
    node::{
        activation,
        adapters::ControlSecrets,
        data_plane::{DataPlane, DataPlaneParts},
        doors::AgentPorts,
        keys,
    },
};

/// The longest wait for the first state of a node that never had one.
const FIRST_STATE_LIMIT: Duration = Duration::from_secs(120);

/// One control-plane node gets so long to answer an exchange before another is asked.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(2);

/// What the role is started with.
pub struct DataParts<'a> {
    pub config: &'a ServerConfig,
    pub identity: &'a Arc<Identity>,
    pub audit: Arc<dyn AuditSink>,
    pub inference: GpuNodes,
    /// The GPU node of this process, which is one of them.
    pub gpu: Arc<GpuNode>,
    pub anonymous: Option<PrincipalRef>,
    /// Keys of bodies; `None`: nothing is kept of them.
    pub keys: Option<Arc<dyn SubjectKeys>>,
    /// The control plane, if it is in this process.
    pub control: Option<&'a ControlRole>,
    /// Where other data-plane nodes find this one.
    pub slot: SiblingSlot,
}

/// The role, running.
pub struct DataRole {
    /// What serves calls.
    pub plane: DataPlane,
    /// Ends with the role.
    _siblings: AbortOnDropHandle<()>,
    /// Ends with the role.
    _gpus: AbortOnDropHandle<()>,
}

impl DataRole {
    /// Waits for a state (the last good one on disk, or the first that is pushed), then serves.
    pub async fn start(
        parts: DataParts<'_>,
        http: AgentPorts,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let DataParts { config, identity, audit, inference, gpu, anonymous, keys, control, slot } = parts;
        let epoch = epoch::next(&config.data_dir.join("epoch")).context("PV-SERVER-EPOCH")?;
        let counted: Arc<std::sync::OnceLock<Arc<Node>>> = Arc::default();
        let counts = counted.clone();
        let mut push = PushConfig::new(config.node.clone(), identity.name().cluster().as_str(), epoch);
        let limits = StalenessLimits { grants_max_age: config.grants_max_age, ..StalenessLimits::default() };
        push.grants_max_age = limits.grants_max_age;
        push.store = Some(config.data_dir.join("push"));
        push.counts = Arc::new(move || counts.get().map(|node| health(node)).unwrap_or_default());
        let plugins = counted.clone();
        push.plugins = Some(Arc::new(move || plugins.get().map(|node| node.plugins_standing()).unwrap_or_default()));
        let dial = Arc::new(ControlPlane { identity: identity.clone(), nodes: config.control_plane.clone() });
        let leases = Arc::new(ClusterLeases::new(&dial));
        let reports = Arc::new(ClusterReports::new(&dial));
        let client = PushClient::start(push, dial.clone())?;
        let mut states = client.pushed();
        let first = tokio::time::timeout(FIRST_STATE_LIMIT, states.wait_for(Option::is_some)).await;
        let first = first.context("PV-SERVER-NO-STATE: no control-plane node sent a state; is one running?")??.clone();
        let Some(first) = first else { anyhow::bail!("PV-SERVER-NO-STATE: the control plane sent nothing") };
        let source = Arc::new(PushedSource(client.pushed()));
        let secrets = Arc::new(Secrets::new(key_provider(&config.keys, false)?, source));
        models::declare(&gpu, first.snapshot.clone()).await;
        let siblings = Siblings::new(config.node.clone());
        let following_gpus = gpus::follow(&inference, config, identity, control);
        // Plugins that embed look for their model when they are made.
        gpus::settle(&inference).await;
        let plane = DataPlane::new(DataPlaneParts {
            siblings: Some(siblings.clone()),
            first: first.snapshot.clone(),
            secrets: Arc::new(ControlSecrets(secrets.clone())),
            audit,
            inference: Arc::new(inference),
            anonymous,
            staleness: Some((client.staleness_reader(), limits)),
            quotas: Quotas::start(leases, config.node.clone(), epoch),
            definitions: DefinitionKeeper::start(reports, config.node.clone()),
            data_dir: config.data_dir.clone(),
            bodies: keys.map(|keys| BodyKeeper::new(keys, config.audit.privacy.0.clone())),
            connections: Arc::new(GrpcConnections::new(config.node.clone(), channels(&dial))),
            packages: Arc::new(GrpcPackages::new(channels(&dial))),
            egress: config.egress.clone(),
            telemetry: (config.telemetry.clone(), config.node.clone()),
        })?;
        let _ = counted.set(plane.node().clone());
        let own_key = keys::session_key(&config.data_dir.join("keys").join("session.key"))?;
        let keyring = SealKeyring::new(secrets, own_key);
        keyring.take(&first.key_ring).await;
        let http = match certificate::for_agents(config, identity, control).await? {
            Some(issued) => http.with_certificate(issued),
            None => http,
        };
        plane.serve(http, &config.agents, keyring.keys(), tasks, stop)?;
        // The front end is there: others may ask.
        let following = siblings::follow(&siblings, config, identity, control);
        let _ = slot.set(siblings);
        until(keyring.follow(states.clone()), tasks, stop);
        let (activation, node) = (client.activation(), plane.node().clone());
        let activator = Activator { node, gpu };
        until(async move { activation.drive(&activator).await }, tasks, stop);
        let stopped = stop.clone();
        tasks.spawn(async move {
            stopped.cancelled().await;
            client.stop().await;
        });
        Ok(Self { plane, _siblings: following, _gpus: following_gpus })
    }
}

fn health(node: &Node) -> HealthCounts {
    // Read first, so that it is never more than the denials.
    let shed = node.shed();
    health_of(shed, node.counts())
}

/// What a full node refuses says nothing of the state that it runs: it is neither a call nor a denial.
fn health_of(shed: u64, counts: Vec<(&'static str, u64)>) -> HealthCounts {
    let mut health = HealthCounts::default();
    for (outcome, count) in counts {
        let count = if outcome == "denied" { count.saturating_sub(shed) } else { count };
        health.calls += count;
        match outcome {
            "ok" => {}
            "denied" => health.denials += count,
            _ => health.errors += count,
        }
    }
    health
}

/// Makes pushed states the node's own.
struct Activator {
    node: Arc<Node>,
    gpu: Arc<GpuNode>,
}

impl Activate for Activator {
    fn activate(&self, pushed: Arc<Pushed>) -> BoxFuture<'_, Result<(), Vec<NackProblem>>> {
        Box::pin(async move {
            // An older one is a change taken back: the client lets no other through. Under one revision the
            // key ring may change, which is not compiled, and what governs calls.
            if self.node.runs(&pushed.snapshot) {
                return Ok(());
            }
            let activated = activation::activate(pushed.snapshot.clone(), &self.node).await;
            if activated.is_ok() {
                models::declare(&self.gpu, pushed.snapshot.clone()).await;
            }
            activated.map_err(|cause| {
                let problem = |p: &provost_data_policy::PolicyProblem| NackProblem {
                    kind: p.key.kind.to_string(),
                    resource: p.key.to_string(),
                    code: "PV-POLICY-INVALID".to_owned(),
                    message: p.message.clone(),
                };
                cause.problems.iter().map(problem).collect()
            })
        })
    }
}

/// Reaches the control plane as this node.
pub(super) struct ControlPlane {
    pub(super) identity: Arc<Identity>,
    pub(super) nodes: Vec<String>,
}

impl Dial for ControlPlane {
    fn endpoints(&self) -> Vec<String> {
        self.nodes.clone()
    }

    fn dial<'a>(&'a self, endpoint: &'a str) -> BoxFuture<'a, Result<Channel, DialError>> {
        let channel = tls::channel(self.identity.clone(), endpoint, Expect::role(tls::Role::ControlPlane));
        Box::pin(std::future::ready(channel.map_err(DialError::from)))
    }
}

/// A channel to each control-plane node.
fn channels(control: &ControlPlane) -> Vec<Channel> {
    let channel =
        |address: &String| tls::channel(control.identity.clone(), address, Expect::role(tls::Role::ControlPlane)).ok();
    control.nodes.iter().filter_map(channel).collect()
}

/// Exchanges leases with whichever control-plane node answers; a channel reconnects by itself.
struct ClusterLeases {
    nodes: Vec<GrpcLeases>,
    at: AtomicUsize,
}

impl ClusterLeases {
    fn new(control: &ControlPlane) -> Self {
        let channel = |address: &String| {
            tls::channel(control.identity.clone(), address, Expect::role(tls::Role::ControlPlane)).ok()
        };
        let nodes = control.nodes.iter().filter_map(channel).map(GrpcLeases::new).collect();
        Self { nodes, at: AtomicUsize::new(0) }
    }
}

impl LeasePort for ClusterLeases {
    fn exchange(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseResponse, LeaseUnavailable>> {
        Box::pin(async move {
            let at = self.at.load(Ordering::Relaxed);
            let Some(node) = self.nodes.get(at % self.nodes.len().max(1)) else {
                return Err(LeaseUnavailable("no control-plane node is known".to_owned()));
            };
            let answer = tokio::time::timeout(EXCHANGE_LIMIT, node.exchange(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(LeaseUnavailable(format!("no answer in {EXCHANGE_LIMIT:?}"))));
            // The same exchange is repeated by the caller, then at the next node.
            answer.inspect_err(|_| self.at.store(at + 1, Ordering::Relaxed))
        })
    }
}

/// Reports to whichever control-plane node takes it.
struct ClusterReports(Vec<GrpcDefinitions>);

impl ClusterReports {
    fn new(control: &ControlPlane) -> Self {
        let channel = |address: &String| {
            tls::channel(control.identity.clone(), address, Expect::role(tls::Role::ControlPlane)).ok()
        };
        Self(control.nodes.iter().filter_map(channel).map(GrpcDefinitions::new).collect())
    }
}

impl DefinitionPort for ClusterReports {
    fn report(&self, request: ReportDefinitionsRequest) -> BoxFuture<'_, Result<(), ReportFailed>> {
        Box::pin(async move {
            let mut last = ReportFailed("no control-plane node is known".to_owned());
            for node in &self.0 {
                let answer = tokio::time::timeout(EXCHANGE_LIMIT, node.report(request.clone())).await;
                match answer.unwrap_or_else(|_| Err(ReportFailed(format!("no answer in {EXCHANGE_LIMIT:?}")))) {
                    Ok(()) => return Ok(()),
                    Err(cause) => last = cause,
                }
            }
            Err(last)
        })
    }
}

/// Sealed values as they were pushed.
struct PushedSource(watch::Receiver<Option<Arc<Pushed>>>);

impl SealedSource for PushedSource {
    fn sealed(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.0.borrow().as_ref()?.snapshot.get(key).cloned()
    }

    fn wrapped_key(&self, term: u64) -> Option<String> {
        self.0.borrow().as_ref()?.key_ring.get(&term).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_a_full_node_refused_are_neither_calls_nor_denials() {
        for (shed, denied, expect) in [(0, 5, (13, 5, 3)), (4, 5, (9, 1, 3)), (5, 5, (8, 0, 3)), (6, 5, (8, 0, 3))] {
            let counts = vec![("ok", 5), ("tool_error", 2), ("timeout", 1), ("denied", denied)];
            let HealthCounts { calls, denials, errors, .. } = health_of(shed, counts);
            assert_eq!((calls, denials, errors), expect, "{shed} of {denied}");
        }
    }
}
