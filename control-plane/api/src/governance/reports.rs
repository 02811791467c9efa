//! Reports of data-plane nodes, over mutual TLS: a node reports in its own name only.

use provost_wire::{
    governance::{ReportDefinitionsRequest, ReportDefinitionsResponse, definitions_server::Definitions},
    tls::{ROLE_SEPARATOR, Role},
};
use tonic::{Request, Response, Status};

use crate::{ControlError, ControlNode, ErrorKind, QuotaAuthorise};

/// The gRPC form, for nodes with a certificate.
pub(crate) struct DefinitionsService {
    pub(crate) node: ControlNode,
    pub(crate) authorise: QuotaAuthorise,
}

#[tonic::async_trait]
impl Definitions for DefinitionsService {
    async fn report(
        &self,
        request: Request<ReportDefinitionsRequest>,
    ) -> Result<Response<ReportDefinitionsResponse>, Status> {
        let peer = (self.authorise)(request.extensions());
        let request = request.into_inner();
        let is_data_plane = |roles: &str| roles.split(ROLE_SEPARATOR).any(|role| role == Role::DataPlane.as_str());
        match peer {
            Some((node, roles)) if node == request.node && is_data_plane(&roles) => {
                Ok(Response::new(self.node.report_definitions(request).await?))
            }
            _ => {
                let text = format!("the peer cannot report definitions in the name of `{}`", request.node);
                Err(ControlError::new(ErrorKind::Forbidden, "PV-PLUGIN-REPORT", text, "").into())
            }
        }
    }
}
