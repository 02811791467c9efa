//! The receiving end of the gRPC transport.
//!
//! Requests of one stream are begun in the order in which they arrive and answered as they are
//! done. Beginning a message of Raft hands it to Raft's core, so entries reach the core in order
//! although many are in the making. A stream with too many requests in the making is not read
//! further until one is done.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, Weak},
};

use futures::FutureExt;
use provost_wire::node::{
    PeerFailure, PeerRequest, PeerResponse,
    peer_server::{Peer as PeerCalls, PeerServer},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::{Group, GroupError, RpcKind, group::GroupCore, grpc::MAX_PEER_MESSAGE_BYTES, lost_leader};

/// Requests of one stream in the making.
const MAX_IN_THE_MAKING: usize = 1_024;
/// Answers that wait for the network.
const ANSWER_QUEUE: usize = 64;

/// Whether the connection that the extensions describe belongs to node `from`, and that node may be
/// a replica of the group of this name.
pub type Authorise = Arc<dyn Fn(&Extensions, u64, &str) -> bool + Send + Sync>;

/// Serves the peers of the groups of one node; clones share the groups.
#[derive(Clone)]
pub struct PeerService {
    authorise: Authorise,
    groups: Arc<RwLock<HashMap<String, Weak<GroupCore>>>>,
}

impl PeerService {
    /// A service without groups. `authorise` compares the peer's certificate with the node that
    /// it says it is.
    pub fn new(authorise: Authorise) -> Self {
        Self { authorise, groups: Arc::default() }
    }

    /// Serves a group from now on, in place of an earlier one of the same name.
    pub fn add(&self, group: &Group) {
        let core = group.core();
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(core.name().to_owned(), Arc::downgrade(core));
    }

    /// The tonic service, with the message sizes that replicas use.
    pub fn into_server(self) -> PeerServer<Self> {
        PeerServer::new(self)
            .max_decoding_message_size(MAX_PEER_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_PEER_MESSAGE_BYTES)
    }

    fn group(&self, name: &str) -> Option<Arc<GroupCore>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(name).and_then(Weak::upgrade)
    }

    async fn answer(self, request: PeerRequest) -> PeerResponse {
        let id = request.id;
        match self.handle(request).await {
            Ok(body) => PeerResponse { id, body, failure: None },
            Err(failure) => PeerResponse { id, body: bytes::Bytes::new(), failure: Some(failure) },
        }
    }

    async fn handle(&self, request: PeerRequest) -> Result<bytes::Bytes, PeerFailure> {
        let Some(core) = self.group(&request.group) else {
            return Err(not_here(format!("this node runs no group {}", request.group)));
        };
        if core.node_id() != request.to {
            return Err(not_here(format!("this is node {} and not {}", core.node_id(), request.to)));
        }
        let Some(kind) = RpcKind::from_code(request.kind) else {
            return Err(failure(&GroupError::Wire(format!("message kind {}", request.kind)), false));
        };
        core.handle(kind, request.body).await.map_err(|error| {
            // Only messages that a stopped group did not take end so; see `GroupCore::handle`.
            failure(&error, matches!(error, GroupError::Stopped))
        })
    }

    /// Serves one stream until it ends, and tells the groups that were led on it.
    async fn serve(
        self,
        connection: Extensions,
        requests: Streaming<PeerRequest>,
        answers: mpsc::Sender<Result<PeerResponse, Status>>,
    ) {
        let mut led = Led::default();
        self.clone().exchange_all(connection, requests, answers, &mut led).await;
        for (group, peer) in led.0 {
            if let Some(core) = self.group(&group) {
                lost_leader::connection_ended(Arc::downgrade(&core), peer);
            }
        }
    }

    async fn exchange_all(
        self,
        connection: Extensions,
        mut requests: Streaming<PeerRequest>,
        answers: mpsc::Sender<Result<PeerResponse, Status>>,
        led: &mut Led,
    ) {
        let places = Arc::new(Semaphore::new(MAX_IN_THE_MAKING));
        let mut peer = None;
        // An error is the stream's end: the sender sees it too.
        while let Ok(Some(request)) = requests.message().await {
            let from = request.from;
            if *peer.get_or_insert(from) != from || !(self.authorise)(&connection, from, &request.group) {
                let refused =
                    Status::permission_denied(format!("this connection does not belong to node {from} of this group"));
                let _ = answers.send(Err(refused)).await;
                return;
            }
            led.note(&request, || self.group(&request.group).is_some_and(|core| core.node_id() == request.to));
            let Ok(place) = places.clone().acquire_owned().await else { return };
            // Unconstrained: a task that used up its share of time would put the message off, and
            // the one behind it would be begun first.
            let mut answer = Box::pin(tokio::task::unconstrained(self.clone().answer(request)));
            let sent = match answer.as_mut().now_or_never() {
                Some(answer) => answers.send(Ok(answer)).await,
                None => {
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        let answer = answer.await;
                        drop(place);
                        // The peer may have gone; it asks again.
                        let _ = answers.send(Ok(answer)).await;
                    });
                    Ok(())
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// The groups in which the peer of a stream sent entries or heartbeats on it, and the peer. As many as this node has at most:
/// a peer may name any.
#[derive(Debug, Default, PartialEq)]
struct Led(Vec<(String, u64)>);

impl Led {
    /// `is_ours` says whether the request is for a group that this node has.
    fn note(&mut self, request: &PeerRequest, is_ours: impl FnOnce() -> bool) {
        let leads = RpcKind::from_code(request.kind) == Some(RpcKind::AppendEntries);
        if leads && !self.0.iter().any(|(group, _)| *group == request.group) && is_ours() {
            self.0.push((request.group.clone(), request.from));
        }
    }
}

/// The message reached the wrong node or came before the group: nothing was done.
fn not_here(message: String) -> PeerFailure {
    let code = GroupError::Wire(String::new()).code().to_owned();
    PeerFailure { code, message, unreachable: true }
}

fn failure(error: &GroupError, unreachable: bool) -> PeerFailure {
    PeerFailure { code: error.code().to_owned(), message: error.to_string(), unreachable }
}

#[tonic::async_trait]
impl PeerCalls for PeerService {
    type ExchangeStream = ReceiverStream<Result<PeerResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (_, connection, requests) = request.into_parts();
        let (answers, outgoing) = mpsc::channel(ANSWER_QUEUE);
        tokio::spawn(self.clone().serve(connection, requests, answers));
        // At once: the sender waits for this before its first request.
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_a_leader_has_the_bound_of_this_nodes_groups() {
        let sent = |kind: RpcKind, group: &str| PeerRequest {
            kind: kind.code(),
            group: group.to_owned(),
            from: 7,
            ..PeerRequest::default()
        };
        let mut led = Led::default();
        for n in 0..100 {
            led.note(&sent(RpcKind::AppendEntries, &format!("made-up-{n}")), || false);
            led.note(&sent(RpcKind::Vote, "control"), || true);
        }
        assert_eq!(led, Led::default(), "neither names of groups that are not here nor votes are kept");
        for group in ["control", "audit", "control", "audit"] {
            led.note(&sent(RpcKind::AppendEntries, group), || true);
        }
        assert_eq!(led.0, [("control".to_owned(), 7), ("audit".to_owned(), 7)]);
    }
}
