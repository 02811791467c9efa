//! Takes records from nodes that have no audit log of their own.

use std::sync::Arc;

use provost_types::{AuditEvent, AuditSink};
use provost_wire::{
    node::{RecordRequest, RecordResponse, audit_server::Audit},
    tls,
};
use tonic::{Request, Response, Status};

/// The service.
pub struct AuditService {
    /// Where records go.
    pub sink: Arc<dyn AuditSink>,
}

#[tonic::async_trait]
impl Audit for AuditService {
    async fn record(&self, request: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        if tls::peer_of(&request).is_none() {
            return Err(Status::unauthenticated("PV-AUDIT-PEER: only nodes of the cluster may record"));
        }
        let event: AuditEvent = serde_json::from_slice(&request.get_ref().event)
            .map_err(|cause| Status::invalid_argument(format!("PV-AUDIT-EVENT: {cause}")))?;
        let receipt = self.sink.record(event).await.map_err(|cause| Status::unavailable(cause.to_string()))?;
        let receipt = serde_json::to_vec(&receipt).map_err(|cause| Status::internal(cause.to_string()))?;
        Ok(Response::new(RecordResponse { receipt: receipt.into() }))
    }
}
