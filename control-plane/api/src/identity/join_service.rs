//! Taking new nodes in. The one service that callers without a certificate may use.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use provost_control_state::{Cluster, ClusterCommand, ClusterReply, JoinToken};
use provost_wire::{
    node::{
        JoinRequest, JoinResponse, ReadmitRequest, RemovedRequest, RemovedResponse, RenewResponse, join_server::Join,
    },
    tls::{NodeName, Role, Roles, peer_of, remote_of},
    understands, wire_version,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};

use super::{
    Certifier, JoinSecret, Joining, NodeKey, NodeRecord, NotMember, by_operator, readmit::readmit, registry::rejected,
    token::unix_ns,
};
use crate::{ControlError, ErrorKind};

/// Nodes that join at once: strangers must not fill the group with reads.
const MAX_JOINING: usize = 16;

/// The `Join` service.
#[derive(Debug)]
pub struct JoinService {
    certifier: Arc<Certifier>,
    places: Semaphore,
}

impl JoinService {
    /// Takes nodes in with certificates of this certifier.
    pub fn new(certifier: Arc<Certifier>) -> Self {
        Self { certifier, places: Semaphore::new(MAX_JOINING) }
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, ControlError> {
        self.places.try_acquire().map_err(|_| {
            let text = "many nodes are joining";
            ControlError::new(ErrorKind::Unavailable, "PV-JOIN-BUSY", text, "try again in a moment")
        })
    }

    async fn take_in(
        &self,
        request: JoinRequest,
        remote: Option<SocketAddr>,
        caller: Option<NodeName>,
    ) -> Result<JoinResponse, ControlError> {
        check_version(request.wire_version)?;
        let secret = JoinSecret::parse(&request.token)?;
        // With an operator's certificate too: the key tells this start of the node from one on an empty disk.
        let key = NodeKey::of_request(&request.csr)?;
        let operator = by_operator(&self.certifier.registry().cluster());
        let _place = self.place()?;
        let (hash, key_hash) = (secret.hash(), key.hash());
        let now_ns = unix_ns(SystemTime::now());
        let cluster = self.certifier.registry().confirmed().await?;
        // Guesses end here: only what may succeed is proposed.
        check_cluster(request.wire_version, cluster.version())?;
        let token = cluster.check_token(&hash, &key_hash, now_ns).map_err(|e| rejected(e.problems))?;
        if token.roles.iter().any(|r| r.as_str() == Role::ControlPlane.as_str()) && request.address.is_empty() {
            let text = "a control-plane node must say where its peers reach it";
            return Err(ControlError::new(ErrorKind::Invalid, "PV-JOIN-ADDRESS", text, "name its address"));
        }
        check_wanted(&request, token)?;
        if operator {
            check_certificate(&caller.ok_or(NotMember::NoCertificate)?, &cluster, token)?;
        } else {
            // The certificate cannot be issued without: look before the token is used.
            drop(self.certifier.signing()?);
        }
        let command = ClusterCommand::TokenUsed { hash, key: key_hash, address: request.address, now_ns };
        let joining = Joining {
            node: token.node.clone(),
            roles: token.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", "),
            token: token.id.clone(),
            remote,
        };
        let (node_id, name, roles) = match self.certifier.registry().join(joining, command).await? {
            ClusterReply::Joined { node_id, name, roles } => (node_id, name, roles),
            other => return Err(ControlError::internal(format!("a join was answered by {other:?}"))),
        };
        let node = NodeRecord::of_parts(node_id, name, &roles)?;
        let issued = match operator {
            true => self.certifier.nothing_issued(),
            false => self.certifier.certify(&node, &key, SystemTime::now())?,
        };
        tracing::info!(node = %node.name, node_id, roles = %node.roles, token = secret.id(), "a node joined");
        Ok(JoinResponse {
            cluster: cluster.name().map_or(String::new(), |n| n.to_string()),
            role: node.roles.to_string(),
            node: node.name.to_string(),
            node_id,
            certificate: issued.certificate,
            bundle: issued.bundle,
            control_plane: issued.control_plane.into_iter().collect(),
        })
    }
}

/// A node that takes itself for another one than the token names would not start, and its token would be gone.
fn check_wanted(request: &JoinRequest, token: &JoinToken) -> Result<(), ControlError> {
    let refuse = |code: &'static str, text: String| -> Result<(), ControlError> {
        Err(ControlError::new(ErrorKind::Refused, code, text, "the token was not used up"))
    };
    if !request.node.is_empty() && request.node != token.node.as_str() {
        let text = format!("the join token is for node {}, and this is node {}", token.node, request.node);
        return refuse("PV-JOIN-TOKEN", text);
    }
    let given: Vec<&str> = token.roles.iter().map(|role| role.as_str()).collect();
    let lacking: Vec<&str> =
        request.roles.split(',').filter(|role| !role.is_empty() && !given.contains(role)).collect();
    if !lacking.is_empty() {
        let text = format!("the join token is for the roles {}, and not for {}", given.join(", "), lacking.join(", "));
        return refuse("PV-JOIN-ROLE", text);
    }
    Ok(())
}

/// The token says whom the administrator wants, the certificate whom the operator vouches for.
fn check_certificate(shown: &NodeName, cluster: &Cluster, token: &JoinToken) -> Result<(), ControlError> {
    let roles: Result<Vec<Role>, _> = token.roles.iter().map(|r| r.as_str().parse()).collect();
    let roles = roles.and_then(Roles::new).map_err(ControlError::internal)?;
    let name = cluster.name().ok_or_else(|| ControlError::internal("the cluster has no name"))?;
    let wanted = NodeName::new(name.clone(), roles, token.node.clone());
    if *shown == wanted {
        return Ok(());
    }
    let text = format!("the certificate is for {shown}, the join token for {wanted}");
    let hint = "certify the node under that name, or make a token for its own";
    Err(ControlError::new(ErrorKind::Forbidden, "PV-TLS-NAME", text, hint))
}

fn check_version(version: u32) -> Result<(), ControlError> {
    if understands(version) {
        return Ok(());
    }
    let own = wire_version();
    let text = format!("the node speaks version {version} and the cluster version {own}");
    Err(ControlError::new(ErrorKind::Refused, "PV-JOIN-VERSION", text, "use builds at most one version apart"))
}

/// A node that is older than what the cluster stores by now could not read it.
fn check_cluster(version: u32, cluster: u32) -> Result<(), ControlError> {
    if version >= cluster {
        return Ok(());
    }
    let text = format!("the node speaks version {version}, and the cluster stores records of version {cluster}");
    Err(ControlError::new(ErrorKind::Refused, "PV-JOIN-VERSION", text, "join with the build that the cluster runs"))
}

#[tonic::async_trait]
impl Join for JoinService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let (remote, caller) = (remote_of(&request), peer_of(&request).cloned());
        Ok(Response::new(self.take_in(request.into_inner(), remote, caller).await?))
    }

    async fn readmit(&self, request: Request<ReadmitRequest>) -> Result<Response<RenewResponse>, Status> {
        let _place = self.place()?;
        Ok(Response::new(readmit(&self.certifier, request.into_inner(), SystemTime::now()).await?))
    }

    async fn removed(&self, request: Request<RemovedRequest>) -> Result<Response<RemovedResponse>, Status> {
        let (id, cluster) = (request.get_ref().node_id, self.certifier.registry().cluster());
        let removed = id > 0 && id <= cluster.last_node_id() && !cluster.members().contains_key(&id);
        Ok(Response::new(RemovedResponse { removed: removed && cluster.name().is_some() }))
    }
}
