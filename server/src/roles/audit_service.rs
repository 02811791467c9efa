//! Takes records from control-plane nodes, which have no audit log of their own.
//!
//! Invariant: only members that have the role may record: not a node that was removed and still has
//! its certificate, and not one that keeps its log itself.

use std::sync::Arc;

use futures::future::join_all;
use provost_types::{AuditEvent, AuditSink};
use provost_wire::{
    node::{RecordRequest, RecordResponse, Recorded, audit_server::Audit, recorded},
    tls,
};
use tonic::{Request, Response, Status};

use super::standing::Standing;

/// The service.
pub struct AuditService {
    /// Where records go.
    pub sink: Arc<dyn AuditSink>,
    /// Who says whether a caller is a member.
    pub standing: Standing,
}

#[tonic::async_trait]
impl Audit for AuditService {
    async fn record(&self, request: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        let Some(caller) = tls::certified_of(&request) else {
            return Err(Status::unauthenticated("PV-AUDIT-PEER: only nodes of the cluster may record"));
        };
        if !caller.name.has(tls::Role::ControlPlane) {
            let text = format!("PV-AUDIT-PEER: {} is no control-plane node: it records at home", caller.name);
            return Err(Status::permission_denied(text));
        }
        self.standing.check(caller).await?;
        let parse = |event: &bytes::Bytes| serde_json::from_slice::<AuditEvent>(event);
        let events: Result<Vec<_>, _> = request.get_ref().events.iter().map(parse).collect();
        let events = events.map_err(|cause| Status::invalid_argument(format!("PV-AUDIT-EVENT: {cause}")))?;
        // Together: they share the log's syncs, in the order in which they came.
        let receipts = join_all(events.into_iter().map(|event| self.sink.record(event))).await;
        let recorded = receipts.into_iter().map(|receipt| {
            let receipt = receipt.map_err(|cause| cause.to_string());
            let receipt = receipt.and_then(|r| serde_json::to_vec(&r).map_err(|cause| cause.to_string()));
            let result = match receipt {
                Ok(receipt) => recorded::Result::Receipt(receipt.into()),
                Err(failure) => recorded::Result::Failure(failure),
            };
            Recorded { result: Some(result) }
        });
        Ok(Response::new(RecordResponse { recorded: recorded.collect() }))
    }
}
