//! What a replica does for writers and other replicas over gRPC.
//!
//! Invariants: a writer acts only under its own name; the signing key and the records go to
//! members with the role audit-log alone, and only they write what the log records of itself. Who
//! that is, the caller of [`AuditService::server`] decides.

mod handed_in;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use provost_audit_verify::LogLayout;
use provost_types::BoxFuture;
use provost_wire::audit::{
    AppendRequest, AppendResponse, CheckpointsRequest, CheckpointsResponse, GroupRequest, GroupResponse, KeyRequest,
    KeyResponse, LeaveRequest, LeaveResponse, LeavesRequest, LeavesResponse, OfferKeyRequest, OfferKeyResponse,
    OpenCall, OpenCallsRequest, OpenCallsResponse, PrunedRequest, PrunedResponse, WriterPlace, WriterRequest,
    WriterResponse,
    audit_log_server::{AuditLog, AuditLogServer},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};

use self::handed_in::HandedIn;
use crate::{
    catch_up::{send_checkpoints, send_leaves, send_pruned},
    client::log_of,
    entry::{Command, Reply},
    node::AuditNode,
    proposer::{ProposeError, Proposer},
};

/// Bytes of one message of this service: a batch of records and some.
pub const MAX_AUDIT_MESSAGE_BYTES: usize = 16 << 20;

/// Says who calls.
pub trait AuditCallers: Send + Sync + 'static {
    /// The member's name, under which it may write.
    fn writer<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<String, Status>>;
    /// Refuses all but members with the role control-plane.
    fn control<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>>;
    /// Refuses all but members with the role audit-log.
    fn replica<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>>;
}

/// The service; refuses everything until the replica is there.
#[derive(Clone)]
pub struct AuditService {
    node: Arc<OnceLock<AuditNode>>,
    callers: Arc<dyn AuditCallers>,
}

impl AuditService {
    /// The tonic service, with its message sizes.
    pub fn server(node: Arc<OnceLock<AuditNode>>, callers: Arc<dyn AuditCallers>) -> AuditLogServer<Self> {
        AuditLogServer::new(Self { node, callers })
            .max_decoding_message_size(MAX_AUDIT_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_AUDIT_MESSAGE_BYTES)
    }

    fn node(&self) -> Result<&AuditNode, Status> {
        let starting = || Status::unavailable("PV-AUDIT-UNAVAILABLE: this audit node is starting");
        self.node.get().ok_or_else(starting)
    }

    /// Where a log lies here.
    fn layout(&self, tenant: &str) -> Result<LogLayout, Status> {
        let log = log_of(tenant).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(LogLayout::new(self.node()?.dir().join(log.folder())))
    }

    fn proposer(&self) -> Result<Arc<dyn Proposer>, Status> {
        Ok(Arc::new(self.node()?.proposer()))
    }

    async fn is_writer(&self, connection: &Extensions, writer: &str) -> Result<(), Status> {
        let name = self.callers.writer(connection).await?;
        if name == writer {
            return Ok(());
        }
        Err(Status::permission_denied(format!("PV-AUDIT-PEER: {name} may not write as `{writer}`")))
    }
}

fn failed(error: ProposeError) -> Status {
    match error {
        ProposeError::Again(why) => Status::unavailable(format!("PV-AUDIT-UNAVAILABLE: {why}")),
        ProposeError::Refused(why) => Status::failed_precondition(format!("PV-AUDIT-UNAVAILABLE: {why}")),
    }
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl AuditLog for AuditService {
    type LeavesStream = Stream<LeavesResponse>;
    type CheckpointsStream = Stream<CheckpointsResponse>;
    type PrunedStream = Stream<PrunedResponse>;

    async fn writer(&self, request: Request<WriterRequest>) -> Result<Response<WriterResponse>, Status> {
        self.is_writer(request.extensions(), &request.get_ref().writer).await?;
        let state = self.proposer()?.writer_state(request.into_inner().writer).await.map_err(failed)?;
        let place = |(log, chain): (provost_audit_core::LogId, crate::state::WriterChain)| WriterPlace {
            log: log.tenant().to_owned(),
            epoch: chain.epoch,
            seq: chain.seq,
            prev: Bytes::copy_from_slice(&chain.prev.0),
        };
        Ok(Response::new(WriterResponse { epoch: state.epoch, places: state.chains.into_iter().map(place).collect() }))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let command = request.get_ref().command.clone();
        let decoded =
            Command::decode(&command).map_err(|e| Status::invalid_argument(format!("PV-AUDIT-EVENT: {e}")))?;
        let Command::Append(append) = decoded else {
            return Err(Status::permission_denied("PV-AUDIT-PEER: only replicas propose this command"));
        };
        self.is_writer(request.extensions(), &append.writer).await?;
        let HandedIn { own, unreadable } = HandedIn::of(&append);
        if let Some(event) = own {
            let refused = |status: Status| Status::new(status.code(), format!("{} (event {event})", status.message()));
            self.callers.replica(request.extensions()).await.map_err(refused)?;
        }
        if let Some(why) = unreadable {
            let (reply, keys_generation) = (Reply::Invalid(why).encode().into(), 0);
            return Ok(Response::new(AppendResponse { reply, keys_generation }));
        }
        drop(append);
        let reply = self.proposer()?.propose(command).await.map_err(failed)?;
        let keys_generation = self.node()?.subject_keys().generation();
        Ok(Response::new(AppendResponse { reply: reply.encode().into(), keys_generation }))
    }

    async fn open_calls(&self, request: Request<OpenCallsRequest>) -> Result<Response<OpenCallsResponse>, Status> {
        self.is_writer(request.extensions(), &request.get_ref().writer).await?;
        let OpenCallsRequest { writer, before_epoch } = request.into_inner();
        let calls = self.proposer()?.open_calls(writer, before_epoch).await.map_err(failed)?;
        let call = |call: crate::recovery::OpenCall| OpenCall {
            log: call.log.tenant().to_owned(),
            index: call.index,
            intent: call.intent,
        };
        Ok(Response::new(OpenCallsResponse { calls: calls.into_iter().map(call).collect() }))
    }

    async fn group(&self, request: Request<GroupRequest>) -> Result<Response<GroupResponse>, Status> {
        self.callers.writer(request.extensions()).await?;
        let metrics = self.node()?.metrics();
        Ok(Response::new(GroupResponse {
            node_id: metrics.node_id,
            leader_id: metrics.leader.unwrap_or_default(),
            voters: metrics.voters.into_iter().collect(),
            learners: metrics.learners.into_iter().collect(),
            applied: metrics.applied.unwrap_or_default(),
        }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        self.callers.control(request.extensions()).await?;
        let node = self.node()?;
        if !node.group().is_leader() {
            return Err(Status::unavailable("this audit node does not lead"));
        }
        let left = node.leave(request.get_ref().node_id).await;
        left.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(LeaveResponse {}))
    }

    async fn key(&self, request: Request<KeyRequest>) -> Result<Response<KeyResponse>, Status> {
        self.callers.replica(request.extensions()).await?;
        let node = self.node()?;
        if !node.has_signing_key() {
            return Err(Status::unavailable("PV-AUDIT-KEY: this replica waits for the key itself"));
        }
        let key = node.key().secret_pkcs8().map_err(|e| Status::internal(e.to_string()))?;
        tracing::info!("another audit node got the checkpoint key");
        Ok(Response::new(KeyResponse { pkcs8: key.into() }))
    }

    async fn offer_key(&self, request: Request<OfferKeyRequest>) -> Result<Response<OfferKeyResponse>, Status> {
        self.callers.replica(request.extensions()).await?;
        let node = self.node()?;
        let kept = node.checkpointer().keep_offered(&request.get_ref().pkcs8).await;
        kept.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(OfferKeyResponse { node_id: node.metrics().node_id }))
    }

    async fn leaves(&self, request: Request<LeavesRequest>) -> Result<Response<Self::LeavesStream>, Status> {
        self.callers.replica(request.extensions()).await?;
        let LeavesRequest { log, from, to } = request.into_inner();
        let layout = self.layout(&log)?;
        if from >= to {
            return Err(Status::invalid_argument("PV-AUDIT-BEHIND: no records were asked for"));
        }
        Ok(Response::new(ReceiverStream::new(send_leaves(layout, from, to))))
    }

    async fn checkpoints(
        &self,
        request: Request<CheckpointsRequest>,
    ) -> Result<Response<Self::CheckpointsStream>, Status> {
        self.callers.replica(request.extensions()).await?;
        let layout = self.layout(&request.get_ref().log)?;
        Ok(Response::new(ReceiverStream::new(send_checkpoints(layout))))
    }

    async fn pruned(&self, request: Request<PrunedRequest>) -> Result<Response<Self::PrunedStream>, Status> {
        self.callers.replica(request.extensions()).await?;
        let PrunedRequest { log, to } = request.into_inner();
        let layout = self.layout(&log)?;
        Ok(Response::new(ReceiverStream::new(send_pruned(layout, to))))
    }
}
