//! What siblings ask of this node.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use futures::{Stream, stream};
use provost_mcp::{LogLevel, RequestId};
use provost_types::{BoxFuture, Name, PrincipalRef};
use provost_wire::sibling::{
    ExecuteEvent, ExecuteRequest, HelloRequest, HelloResponse, ListenRequest, OfferRequest, OfferResponse, ReplayEvent,
    ReplayRequest, SessionRequest, SessionResponse, TellRequest, TellResponse,
    client_answer::Outcome,
    sibling_server::{Sibling, SiblingServer},
    tell_request::What,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};

use super::{Siblings, convert, sibling::MAX_MESSAGE_BYTES};

/// Who may ask.
pub trait SiblingCallers: Send + Sync {
    /// Refuses all but members with the role data-plane.
    fn admit<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>>;
}

/// Where the service finds the node once it is there: listeners are open before the node has a state.
pub type SiblingSlot = Arc<OnceLock<Arc<Siblings>>>;

/// See the module.
pub struct SiblingService {
    slot: SiblingSlot,
    callers: Arc<dyn SiblingCallers>,
}

impl SiblingService {
    /// The service, for the listener of the other nodes.
    pub fn server(slot: SiblingSlot, callers: Arc<dyn SiblingCallers>) -> SiblingServer<Self> {
        SiblingServer::new(Self { slot, callers })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn admitted<T>(&self, request: Request<T>) -> Result<(&Arc<Siblings>, T), Status> {
        self.callers.admit(request.extensions()).await?;
        let starting = || Status::unavailable("PV-SIBLING-STARTING: this node does not serve calls yet");
        Ok((self.slot.get().ok_or_else(starting)?, request.into_inner()))
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Sibling for SiblingService {
    type ReplayStream = Events<ReplayEvent>;
    type ExecuteStream = Events<ExecuteEvent>;
    type ListenStream = Events<ExecuteEvent>;

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let (node, _) = self.admitted(request).await?;
        Ok(Response::new(HelloResponse { tag: node.tag.to_string(), draining: node.is_draining() }))
    }

    async fn tell(&self, request: Request<TellRequest>) -> Result<Response<TellResponse>, Status> {
        let (node, TellRequest { session, what }) = self.admitted(request).await?;
        let bad = |what: &str| Status::invalid_argument(format!("PV-SIBLING-MESSAGE: {what}"));
        let id = |text: String| {
            let id = convert::json(text.into())?;
            RequestId::from_raw(&id).ok_or_else(|| bad("no id of a request"))
        };
        let Some(desk) = node.desk.get() else { return Ok(Response::new(TellResponse { known: false })) };
        let known = match what.ok_or_else(|| bad("nothing is told"))? {
            What::Answer(answer) => {
                let outcome = match answer.outcome.ok_or_else(|| bad("an answer without outcome"))? {
                    Outcome::Result(result) => Ok(convert::json(result)?),
                    Outcome::Failure(failure) => Err(convert::rpc_error(failure)?),
                };
                desk.answer(&session, &id(answer.id)?, outcome)
            }
            What::Cancelled(cancelled) => desk.cancel(&session, &id(cancelled)?),
            What::Level(set) => {
                let name = |text: &str| Name::new(text).map_err(|cause| bad(&cause.to_string()));
                let principal = PrincipalRef { tenant: name(&set.tenant)?, name: name(&set.principal)? };
                let level = LogLevel::parse(&set.level).ok_or_else(|| bad("no log level"))?;
                desk.set_level(&session, &principal, level)
            }
            What::Ended(_) => {
                // Whoever was asked by the client tells upstreams.
                node.end_upstream_sessions(&session, false);
                desk.end(&session)
            }
            What::Connected(elicitation) => desk.connected(&session, &elicitation),
        };
        Ok(Response::new(TellResponse { known }))
    }

    async fn replay(&self, request: Request<ReplayRequest>) -> Result<Response<Self::ReplayStream>, Status> {
        let (node, ReplayRequest { session, stream, after }) = self.admitted(request).await?;
        let gone = || Status::not_found("PV-SIBLING-STREAM: there is no such stream here");
        let desk = node.desk.get().ok_or_else(gone)?;
        let body = desk.replay(&session, stream, after).ok_or_else(gone)?;
        let frames = stream::unfold(body, |mut body| async move {
            let frame = std::future::poll_fn(|cx| body.poll_event(cx)).await?;
            Some((Ok(ReplayEvent { frame }), body))
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let (node, asked) = self.admitted(request).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(node.execute_for(asked)?))))
    }

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let (node, asked) = self.admitted(request).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(node.listen_for(asked)?))))
    }

    async fn offer(&self, request: Request<OfferRequest>) -> Result<Response<OfferResponse>, Status> {
        let (node, asked) = self.admitted(request).await?;
        node.offer_for(asked).await.map(Response::new)
    }

    async fn session(&self, request: Request<SessionRequest>) -> Result<Response<SessionResponse>, Status> {
        let (node, asked) = self.admitted(request).await?;
        node.session_for(asked).await.map(Response::new)
    }
}
