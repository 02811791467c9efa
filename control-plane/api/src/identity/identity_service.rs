//! New certificates for members.

use std::{sync::Arc, time::SystemTime};

use provost_wire::{
    node::{RenewRequest, RenewResponse, StandingRequest, StandingResponse, identity_server::Identity},
    tls::{Certified, NameError, certified_of},
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
        // Connections outlive certificates; the right to a new one does not.
        if caller.not_after <= now {
            let text = "the certificate of this connection has ended";
            let hint = "connect with the present one, or join again";
            return Err(ControlError::new(ErrorKind::Unauthenticated, "PV-TLS-EXPIRED", text, hint));
        }
        let key = NodeKey::of_request(&request.csr)?;
        let cluster = self.certifier.registry().confirmed().await?;
        let node_id = standing(&cluster, caller)?.ok_or(NotMember::Unknown)?;
        let member = cluster.members().get(&node_id).ok_or(NotMember::Unknown)?;
        let issued = self.certifier.certify(&NodeRecord::of(node_id, member)?, &key, now)?;
        Ok(RenewResponse {
            certificate: issued.certificate,
            bundle: issued.bundle,
            control_plane: issued.control_plane.into_iter().collect(),
        })
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let caller = certified_of(&request).cloned().ok_or(NotMember::NoCertificate).map_err(ControlError::from)?;
        Ok(Response::new(self.renew_for(&caller, request.into_inner()).await?))
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
