//! New certificates for members.

use std::{sync::Arc, time::SystemTime};

use provost_wire::{
    node::{
        CertifyAgentsRequest, CertifyAgentsResponse, RenewRequest, RenewResponse, StandingRequest, StandingResponse,
        identity_server::Identity,
    },
    tls::{Certified, HostName, HostNameError, NameError, certified_of},
};
use tonic::{Request, Response, Status};

use super::{Certifier, NodeKey, NodeRecord, NotMember, by_operator, standing};
use crate::{ControlError, ErrorKind};

/// The `Identity` service.
#[derive(Debug)]
pub struct IdentityService {
    certifier: Arc<Certifier>,
}

impl IdentityService {
    /// Renews with certificates of this certifier.
    pub fn new(certifier: Arc<Certifier>) -> Self {
        Self { certifier }
    }

    async fn renew_for(&self, caller: &Certified, request: RenewRequest) -> Result<RenewResponse, ControlError> {
        let now = SystemTime::now();
        let (key, node) = self.member(caller, &request.csr, now).await?;
        let issued = self.certifier.certify(&node, &key, now)?;
        Ok(RenewResponse {
            certificate: issued.certificate,
            bundle: issued.bundle,
            control_plane: issued.control_plane.into_iter().collect(),
        })
    }

    /// Who asks for a certificate, by what the group knows now, and the key that it is for.
    async fn member(
        &self,
        caller: &Certified,
        csr: &[u8],
        now: SystemTime,
    ) -> Result<(NodeKey, NodeRecord), ControlError> {
        // Connections outlive certificates; the right to a new one does not.
        if caller.not_after <= now {
            let text = "the certificate of this connection has ended";
            let hint = "connect with the present one, or join again";
            return Err(ControlError::new(ErrorKind::Unauthenticated, "PV-TLS-EXPIRED", text, hint));
        }
        let key = NodeKey::of_request(csr)?;
        let cluster = self.certifier.registry().confirmed().await?;
        let node_id = standing(&cluster, caller)?.ok_or(NotMember::Unknown)?;
        let member = cluster.members().get(&node_id).ok_or(NotMember::Unknown)?;
        Ok((key, NodeRecord::of(node_id, member)?))
    }

    async fn certify_agents_for(
        &self,
        caller: &Certified,
        request: CertifyAgentsRequest,
    ) -> Result<CertifyAgentsResponse, ControlError> {
        let now = SystemTime::now();
        let (key, node) = self.member(caller, &request.csr, now).await?;
        let names: Result<Vec<HostName>, HostNameError> = request.names.iter().map(|n| n.parse()).collect();
        let names = names.map_err(|e| {
            let hint = "write DNS names or addresses into data_plane.hosts of the node";
            ControlError::new(ErrorKind::Invalid, "PV-TLS-AGENT-NAMES", e.to_string(), hint)
        })?;
        let issued = self.certifier.certify_agents(&node, &key, &names, now)?;
        tracing::info!(node = %node.name, names = request.names.join(", "), "a certificate for agents was issued");
        Ok(CertifyAgentsResponse { certificate: issued.certificate, bundle: issued.bundle })
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let caller = certified_of(&request).cloned().ok_or(NotMember::NoCertificate).map_err(ControlError::from)?;
        Ok(Response::new(self.renew_for(&caller, request.into_inner()).await?))
    }

    async fn certify_agents(
        &self,
        request: Request<CertifyAgentsRequest>,
    ) -> Result<Response<CertifyAgentsResponse>, Status> {
        let caller = certified_of(&request).cloned().ok_or(NotMember::NoCertificate).map_err(ControlError::from)?;
        Ok(Response::new(self.certify_agents_for(&caller, request.into_inner()).await?))
    }

    /// By what this node knows: it answers without a quorum too.
    async fn standing(&self, request: Request<StandingRequest>) -> Result<Response<StandingResponse>, Status> {
        let StandingRequest { name, serial_node_id } = request.into_inner();
        let name = name.parse().map_err(|e: NameError| Status::invalid_argument(e.to_string()))?;
        let serial_node_id = (serial_node_id > 0).then_some(serial_node_id);
        let (not_before, not_after) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let asked = Certified { name, dns: Vec::new(), serial_node_id, not_before, not_after };
        let cluster = self.certifier.registry().cluster();
        let stands = match standing(&cluster, &asked) {
            Ok(None) if by_operator(&cluster) => Err(NotMember::Unknown),
            other => other,
        };
        let known = stands.as_ref().ok().copied().flatten().and_then(|id| cluster.members().get(&id));
        let node = known.map_or(String::new(), |member| member.name.to_string());
        let refusal = stands.err().map_or(String::new(), |e| format!("{}: {e}", e.code()));
        Ok(Response::new(StandingResponse { refusal, node }))
    }
}
