//! The gRPC lanes: what is certain about a message that got no answer, who is let in, and that
//! appends are pipelined.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use openraft::{
    BasicNode, RaftNetworkFactory, RaftNetworkV2,
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError},
    vote::RaftLeaderId,
};
use provost_wire::node::{
    PeerRequest, PeerResponse,
    peer_server::{Peer as PeerCalls, PeerServer},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{Journal, config, single::single};
use crate::{
    Group, GrpcTransport, Peer, PeerService, RpcKind, Transport, TransportError, codec,
    network::Network,
    raft_types::{LogId, Types, Vote},
    transport::TransportFuture,
};

const LIMIT: Duration = Duration::from_secs(60);

fn peer(id: u64, address: impl ToString) -> Peer {
    Peer { id, address: address.to_string(), group: "control".to_owned() }
}

fn transport(node_id: u64) -> GrpcTransport {
    GrpcTransport::new(
        node_id,
        Arc::new(|peer: &Peer| {
            tonic::transport::Endpoint::from_shared(format!("http://{}", peer.address)).unwrap().connect_lazy()
        }),
    )
}

async fn serve<S: PeerCalls>(server: PeerServer<S>) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener);
    let serving = tokio::spawn(async move {
        Server::builder().add_service(server).serve_with_incoming(incoming).await.unwrap();
    });
    (address, serving)
}

/// Answers kind 2 in reverse pairs, never answers kind 1, and ends the stream at kind 3.
struct Odd;

#[tonic::async_trait]
impl PeerCalls for Odd {
    type ExchangeStream = ReceiverStream<Result<PeerResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, outgoing) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut held: Option<PeerRequest> = None;
            while let Ok(Some(request)) = requests.message().await {
                match (request.kind, held.take()) {
                    (2, None) => held = Some(request),
                    (2, Some(first)) => {
                        for PeerRequest { id, body, .. } in [request, first] {
                            answers.send(Ok(PeerResponse { id, body, failure: None })).await.unwrap();
                        }
                    }
                    (3, _) => return,
                    (_, before) => held = before,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_find_their_callers_and_a_broken_stream_fails_the_rest() {
    let (address, _serving) = serve(PeerServer::new(Odd)).await;
    let transport = transport(1);
    let call = |kind, body: &'static [u8]| transport.call(peer(2, address), kind, Bytes::from_static(body), LIMIT);
    let (first, second) = (call(RpcKind::Vote, b"first"), call(RpcKind::Vote, b"second"));
    let (first, second) = futures::join!(first, second);
    assert_eq!((first.unwrap(), second.unwrap()), (Bytes::from_static(b"first"), Bytes::from_static(b"second")));

    // Sent and not answered: it may have been done.
    let unanswered = call(RpcKind::AppendEntries, b"lost");
    let ended = call(RpcKind::PreVote, b"end");
    let (unanswered, ended) = futures::join!(unanswered, ended);
    for result in [unanswered, ended] {
        assert!(matches!(result, Err(TransportError::Failed(_))), "{result:?}");
    }
    // The next message opens a new stream.
    let (first, second) = (call(RpcKind::Vote, b"third"), call(RpcKind::Vote, b"fourth"));
    let (first, second) = futures::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_says_nothing_is_given_up_and_dialled_again() {
    let (address, _serving) = serve(PeerServer::new(Odd)).await;
    let transport = transport(1);
    let start = Instant::now();
    let lost = transport.call(peer(2, address), RpcKind::AppendEntries, Bytes::new(), LIMIT).await;
    assert!(matches!(&lost, Err(TransportError::Failed(why)) if why.contains("no answer within")), "{lost:?}");
    assert!(start.elapsed() >= Duration::from_secs(4) && start.elapsed() < LIMIT);
    let call = || transport.call(peer(2, address), RpcKind::Vote, Bytes::new(), LIMIT);
    // Longer than any pause after a failure.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (first, second) = futures::join!(call(), call());
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_reach_the_group_is_certain() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = single(dir.path()).await;
    let unreachable = |result: Result<Bytes, TransportError>, why: &str| match result {
        Err(TransportError::Unreachable(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{why}: {other:?}"),
    };
    let commands = Bytes::from(codec::encode(&vec![Bytes::from_static(b"x")]).unwrap());
    let propose =
        |transport: &GrpcTransport, peer: Peer| transport.call(peer, RpcKind::Propose, commands.clone(), LIMIT);

    // Nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let here = transport(7);
    unreachable(propose(&here, peer(1, closed)).await, "onnect");
    // While it pauses, callers hear so at once.
    let start = Instant::now();
    unreachable(propose(&here, peer(1, closed)).await, "onnect");
    assert!(start.elapsed() < Duration::from_secs(2), "not after the limit of a connection");

    let service = PeerService::new(Arc::new(|_, from, _| from == 7));
    let (address, _serving) = serve(service.clone().into_server()).await;
    unreachable(propose(&here, peer(1, address)).await, "no group control");
    service.add(&group);
    unreachable(propose(&here, peer(2, address)).await, "this is node 1 and not 2");
    let stranger = transport(8);
    let refused = propose(&stranger, peer(1, address)).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(journal.commands().len(), 0, "none of them reached the group");
    propose(&here, peer(1, address)).await.unwrap();
    assert_eq!(journal.commands(), [b"x".to_vec()]);
    group.shutdown().await.unwrap();
    unreachable(propose(&here, peer(1, address)).await.and(Err(TransportError::Unreachable("end".to_owned()))), "end");
}

/// Holds every message until `release`, and counts them.
#[derive(Clone, Default)]
struct Held {
    calls: Arc<AtomicUsize>,
    release: Arc<tokio::sync::Notify>,
    /// The answer to the n-th call is a conflict.
    conflict_at: Option<usize>,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Transport for Held {
    fn call(&self, _: Peer, _: RpcKind, body: Bytes, _: Duration) -> TransportFuture {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        self.bodies.lock().unwrap().push(body);
        let this = self.clone();
        Box::pin(async move {
            this.release.notified().await;
            let answer = if this.conflict_at == Some(number) {
                AppendEntriesResponse::<Types>::Conflict
            } else {
                AppendEntriesResponse::Success
            };
            Ok(Bytes::from(codec::encode(&answer).unwrap()))
        })
    }
}

fn append(number: u64) -> AppendEntriesRequest<Types> {
    let vote = Vote::new_committed(1, 1);
    let at = |index| Some(LogId::new(vote.leader_id.to_committed(), index));
    AppendEntriesRequest { vote, prev_log_id: at(number), entries: Vec::new(), leader_commit: None }
}

#[tokio::test]
async fn appends_are_pipelined_and_a_conflict_ends_the_stream() {
    let transport = Held { conflict_at: Some(5), ..Held::default() };
    let mut network = Network::new(Arc::new(transport.clone()), &config(1), Arc::default());
    let mut link = network.new_client(2, &BasicNode::new("")).await;
    let requests = futures::stream::iter((0..100).map(append));
    let mut answers = link.stream_append(requests, RPCOption::new(LIMIT)).await.unwrap();
    assert!(futures::poll!(answers.next()).is_pending());
    let in_flight = transport.calls.load(Ordering::SeqCst);
    assert_eq!(in_flight, 16, "many are sent before the first answer");
    let sent = transport.bodies.lock().unwrap().clone();
    let indexes =
        sent.iter().map(|body| codec::decode::<AppendEntriesRequest<Types>>(body).unwrap().prev_log_id.unwrap().index);
    assert!(indexes.eq(0..16), "in order");
    let release = transport.release.clone();
    let releasing = tokio::spawn(async move {
        loop {
            release.notify_waiters();
            tokio::task::yield_now().await;
        }
    });
    for number in 0..5 {
        let matched = answers.next().await.unwrap().unwrap().unwrap();
        assert_eq!(matched.map(|id| id.index), Some(number));
    }
    let conflict = answers.next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(conflict, StreamAppendError::Conflict(id) if id.index == 5), "{conflict:?}");
    assert!(answers.next().await.is_none(), "nothing behind a conflict");
    releasing.abort();
}

/// The second append overtook the first on the way: openraft must not take that for a follower
/// that lost what it acknowledged.
#[tokio::test]
async fn a_conflict_before_what_was_acknowledged_is_a_failed_message() {
    let transport = Held { conflict_at: Some(1), ..Held::default() };
    transport.release.notify_one();
    let mut network = Network::new(Arc::new(transport.clone()), &config(1), Arc::default());
    let mut link = network.new_client(2, &BasicNode::new("")).await;
    let requests = futures::stream::iter([append(3), append(3)]);
    let mut answers = link.stream_append(requests, RPCOption::new(LIMIT)).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().unwrap().map(|id| id.index), Some(3));
    transport.release.notify_one();
    let overtaken = answers.next().await.unwrap().unwrap_err();
    assert!(overtaken.to_string().contains("overtook"), "{overtaken}");
    assert!(answers.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_group_is_forgotten_by_its_service() {
    let dir = tempfile::tempdir().unwrap();
    let service = PeerService::new(Arc::new(|_, _, _| true));
    let (address, _serving) = serve(service.clone().into_server()).await;
    {
        let group = Group::open(dir.path(), config(1), Journal::default()).await.unwrap();
        service.add(&group);
        group.shutdown().await.unwrap();
    }
    let answer = transport(7).call(peer(1, address), RpcKind::Vote, Bytes::new(), LIMIT).await;
    assert!(answer.is_err(), "{answer:?}");
    // Its files are closed: it can be opened again, and is served again.
    let group = Group::open(dir.path(), config(1), Journal::default()).await.unwrap();
    service.add(&group);
    group.shutdown().await.unwrap();
}
