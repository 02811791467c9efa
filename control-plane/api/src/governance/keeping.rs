//! What data-plane nodes keep of connections, over mutual TLS: a node keeps in its own name only.

use provost_wire::{
    governance::{KeepConnectionRequest, KeptConnectionResponse, connections_server::Connections},
    tls::{ROLE_SEPARATOR, Role},
};
use tonic::{Request, Response, Status};

use crate::{ControlError, ControlNode, ErrorKind, QuotaAuthorise};

/// The gRPC form, for nodes with a certificate.
pub(crate) struct ConnectionsService {
    pub(crate) node: ControlNode,
    pub(crate) authorise: QuotaAuthorise,
}

#[tonic::async_trait]
impl Connections for ConnectionsService {
    async fn keep(&self, request: Request<KeepConnectionRequest>) -> Result<Response<KeptConnectionResponse>, Status> {
        let peer = (self.authorise)(request.extensions());
        let request = request.into_inner();
        let is_data_plane = |roles: &str| roles.split(ROLE_SEPARATOR).any(|role| role == Role::DataPlane.as_str());
        match peer {
            Some((node, roles)) if node == request.node && is_data_plane(&roles) => {
                Ok(Response::new(self.node.keep_connection(request).await?))
            }
            _ => {
                let text = format!("the peer cannot keep connections in the name of `{}`", request.node);
                Err(ControlError::new(ErrorKind::Forbidden, "PV-CONNECT-KEEP", text, "").into())
            }
        }
    }
}
