//! The services of a control-plane node for the other nodes of its cluster, behind mutual TLS.
//!
//! Every service but Join lets in members only, of the roles it is for; Join lets in whoever shows
//! a join token. The routes are put together here and served by the caller, who may add services
//! of other roles of the same process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use provost_control_raft::{Dial, GrpcTransport, PeerService};
use provost_control_state::Cluster;
use provost_wire::{
    governance::{connections_server::ConnectionsServer, definitions_server::DefinitionsServer},
    node::{
        audit_checkpoints_server::AuditCheckpointsServer, identity_server::IdentityServer, join_server::JoinServer,
        quota_server::QuotaServer,
    },
    packages::package_fetch_server::PackageFetchServer,
    tls::Role,
};
use tokio::task::AbortHandle;
use tonic::service::{Routes, interceptor::InterceptedService};

use crate::{
    ControlError, ControlNode, QuotaService, Subscribers,
    audit_checkpoints::CheckpointService,
    governance::{ConnectionsService, DefinitionsService},
    identity::{
        AgentNames, CallingNode, Certifier, IdentityService, JoinService, KeySealer, MembersOnly, Registry, by_operator,
    },
    members::{CertificateEnd, Standings, decide_releases},
    node::GROUP,
    packages::FetchService,
    push::{HubConfig, PushHub},
    quota::QuotaAuthorise,
    record::now_ns,
};

/// Between two questions to the quorum whether this node's state is still the newest.
const CONFIRM_EVERY: Duration = Duration::from_millis(1_000);
/// Bytes of one report of tool definitions.
const MAX_REPORT_BYTES: usize = 16 << 20;
/// Bytes of what a node keeps of a connection.
const MAX_CONNECTION_BYTES: usize = 256 << 10;
/// Roles that hold a replica of a group.
const REPLICAS: &[Role] = &[Role::ControlPlane, Role::AuditLog];
/// Roles that take configuration.
const SUBSCRIBERS: &[Role] = &[Role::DataPlane, Role::GpuNode, Role::AuditLog];

/// The services of one node.
pub struct ClusterApi {
    node: ControlNode,
    certifier: Arc<Certifier>,
    hub: PushHub,
    standings: Standings,
    peers: PeerService,
    confirming: AbortHandle,
    deciding: AbortHandle,
}

impl ClusterApi {
    /// Starts what the services share. `certificate_life` is that of the certificates it signs,
    /// `agent_names` the names that it lets nodes have for agents; `dial` reaches the services of other
    /// control-plane nodes; `certificate_end` is what the status says of this node's own certificate.
    pub fn start(
        node: &ControlNode,
        certificate_life: Duration,
        agent_names: AgentNames,
        dial: Dial,
        certificate_end: CertificateEnd,
    ) -> Result<Self, ControlError> {
        let registry: Arc<dyn Registry> = Arc::new(node.clone());
        let sealer: Arc<dyn KeySealer> = node.secrets();
        let certifier = Arc::new(Certifier::new(registry, sealer, certificate_life).with_agent_names(agent_names));
        let confirmed = Arc::new(AtomicU64::new(0));
        let confirming = tokio::spawn(confirm(node.clone(), confirmed.clone())).abort_handle();
        let hub = PushHub::start(
            &node.inner.published,
            HubConfig { authorise: callers(node), confirmed_ns: Arc::new(move || confirmed.load(Ordering::Relaxed)) },
        )
        .map_err(ControlError::internal)?;
        // The interceptor has verified who calls; Raft insists that it is the node it says it is.
        let of_peers: Arc<dyn Registry> = Arc::new(node.clone());
        let peers = PeerService::new(Arc::new(move |extensions, from, group| {
            // One listener may serve the control group and the audit group; each has its own replicas.
            let needed = if group == GROUP { Role::ControlPlane } else { Role::AuditLog };
            extensions
                .get::<CallingNode>()
                .is_some_and(|caller| caller.name.has(needed) && is_replica(&of_peers.cluster(), caller, from))
        }));
        peers.add(&node.inner.group);
        let standings = Standings::new(node.clone(), hub.clone(), dial, certificate_end);
        let deciding = tokio::spawn(decide_releases(node.clone(), standings.clone())).abort_handle();
        Ok(Self { node: node.clone(), certifier, hub, standings, peers, confirming, deciding })
    }

    /// Signs certificates from this node's state.
    pub fn certifier(&self) -> &Arc<Certifier> {
        &self.certifier
    }

    /// Who takes configuration from this node.
    pub fn hub(&self) -> &PushHub {
        &self.hub
    }

    /// Where other groups of this process are added whose replicas call on the same listener.
    pub fn peers(&self) -> &PeerService {
        &self.peers
    }

    /// What all control-plane nodes know of other nodes, for the admin service.
    pub fn subscribers(&self) -> Arc<dyn Subscribers> {
        Arc::new(self.standings.clone())
    }

    /// Every service.
    pub fn routes(&self) -> Routes {
        let registry: Arc<dyn Registry> = Arc::new(self.node.clone());
        let only = |roles| MembersOnly::new(registry.clone(), roles);
        let identity = IdentityServer::new(IdentityService::new(self.certifier.clone()));
        let quota = QuotaService::new(self.node.clone(), callers(&self.node));
        let definitions = DefinitionsService { node: self.node.clone(), authorise: callers(&self.node) };
        let definitions = DefinitionsServer::new(definitions).max_decoding_message_size(MAX_REPORT_BYTES);
        let connections = ConnectionsService { node: self.node.clone(), authorise: callers(&self.node) };
        let connections = ConnectionsServer::new(connections).max_decoding_message_size(MAX_CONNECTION_BYTES);
        let packages = PackageFetchServer::new(FetchService::new(self.node.clone()));
        let held = AuditCheckpointsServer::new(CheckpointService::new(self.node.clone()));
        Routes::new(JoinServer::new(JoinService::new(self.certifier.clone())))
            .add_service(InterceptedService::new(self.peers.clone().into_server(), only(REPLICAS).or_unlisted()))
            .add_service(InterceptedService::new(self.standings.service(), only(&[Role::ControlPlane])))
            .add_service(InterceptedService::new(identity, only(&Role::ALL)))
            .add_service(InterceptedService::new(self.hub.service(), only(SUBSCRIBERS)))
            .add_service(InterceptedService::new(QuotaServer::new(quota), only(&[Role::DataPlane])))
            .add_service(InterceptedService::new(definitions, only(&[Role::DataPlane])))
            .add_service(InterceptedService::new(connections, only(&[Role::DataPlane])))
            .add_service(InterceptedService::new(packages, only(&[Role::DataPlane])))
            .add_service(InterceptedService::new(held, only(&[Role::AuditLog])))
    }

    /// Ends the streams: without it a server waits for them for ever.
    pub fn stop(&self) {
        self.confirming.abort();
        self.deciding.abort();
        self.hub.stop();
    }
}

/// Who sent a request, as the interceptor verified it: name and roles. The certificate of a node
/// with the role control-plane has its number, so its name comes from the member list.
fn callers(node: &ControlNode) -> QuotaAuthorise {
    let node = node.clone();
    Arc::new(move |extensions| {
        let caller = extensions.get::<CallingNode>()?;
        let cluster = node.cluster();
        let member = caller.name.node_id().and_then(|id| cluster.members().get(&id));
        let name = member.map_or_else(|| caller.name.id().to_owned(), |member| member.name.to_string());
        Some((name, caller.name.roles().to_string()))
    })
}

/// Whether a caller is the replica that it says it is. The cluster's own CA writes the number into the
/// certificate. An operator's certificate has a name: it is the listed member's of that number, or
/// the number is not listed here yet.
fn is_replica(cluster: &Cluster, caller: &CallingNode, from: u64) -> bool {
    match caller.node_id {
        Some(id) => id == from,
        None if caller.name.node_id() == Some(from) => !by_operator(cluster),
        None if caller.name.node_id().is_some() => false,
        // A stream that began before the list came is judged by the list as it is now.
        None => cluster.members().get(&from).is_none_or(|member| member.name.as_str() == caller.name.id()),
    }
}

/// Asks again and again whether the applied state holds everything acknowledged. While the node is
/// cut off nothing is noted, and the nodes that it serves see how old their state may be.
async fn confirm(node: ControlNode, confirmed: Arc<AtomicU64>) {
    let mut last = 0;
    loop {
        // A clock that is set back must not make nodes look stale.
        let asked = now_ns().max(last + 1);
        if node.inner.group.read_barrier().await.is_ok() {
            confirmed.store(asked, Ordering::Relaxed);
            last = asked;
        }
        tokio::time::sleep(CONFIRM_EVERY).await;
    }
}

/// Raft's messages of node `node_id` over channels that `dial` makes.
pub fn peer_transport(node_id: u64, dial: provost_control_raft::Dial) -> Arc<GrpcTransport> {
    Arc::new(GrpcTransport::new(node_id, dial))
}
