//! Nodes that say and do what they are told, over real connections.
#![allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use provost_types::{ChatMessage, FinishReason, InferenceErrorKind, ModelKind, ModelState, TokenUsage};
use provost_wire::gpu::gpu_server::{Gpu, GpuServer};
use provost_wire::gpu::{self as wire, EmbedResponse as WireEmbedded, Report, WatchRequest, WorkRequest};
use provost_wire::gpu_form as form;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Endpoint};

use super::*;

/// Patience with a loaded machine.
const SOON: Duration = Duration::from_secs(30);
/// Between two words of a node.
const REPORTED_EVERY: Duration = Duration::from_millis(500);

type Event = Result<wire::ChatEvent, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A node that answers as it was told, and `hi` when nothing is left of that.
struct Fake {
    report: Mutex<GpuReport>,
    chats: Mutex<VecDeque<Vec<Event>>>,
    embeds: Mutex<VecDeque<Result<WireEmbedded, Status>>>,
    asked: AtomicUsize,
    /// Answers do not end, and note when nobody listens any more.
    hangs: AtomicBool,
    was_left: Arc<AtomicBool>,
}

struct NotesItsEnd(Arc<AtomicBool>);

impl Drop for NotesItsEnd {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[tonic::async_trait]
impl Gpu for Fake {
    type WatchStream = Events<Report>;
    type ChatStream = Events<wire::ChatEvent>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let report = form::report_to_wire(&self.report.lock());
        let reports = stream::unfold(true, move |is_first| {
            let report = report.clone();
            async move {
                if !is_first {
                    tokio::time::sleep(REPORTED_EVERY).await;
                }
                Some((Ok(report), false))
            }
        });
        Ok(Response::new(Box::pin(reports)))
    }

    async fn chat(&self, request: Request<WorkRequest>) -> Result<Response<Self::ChatStream>, Status> {
        self.asked.fetch_add(1, SeqCst);
        let read: ChatRequest = serde_json::from_slice(&request.get_ref().body).unwrap();
        assert_eq!(read, ask("m"));
        if self.hangs.load(SeqCst) {
            let left = NotesItsEnd(self.was_left.clone());
            let endless = stream::pending().map(move |event: Event| {
                let _left = &left;
                event
            });
            return Ok(Response::new(Box::pin(stream::once(async { Ok(form::begun()) }).chain(endless))));
        }
        let events = self.chats.lock().pop_front().unwrap_or_else(|| vec![begun(), said("hi"), end()]);
        Ok(Response::new(Box::pin(stream::iter(events))))
    }

    async fn embed(&self, _: Request<WorkRequest>) -> Result<Response<WireEmbedded>, Status> {
        self.asked.fetch_add(1, SeqCst);
        let vectors = vec![Bytes::from(vec![0_u8, 0, 128, 63])];
        let one = || Ok(WireEmbedded { vectors, ..WireEmbedded::default() });
        self.embeds.lock().pop_front().unwrap_or_else(one).map(Response::new)
    }
}

impl Fake {
    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

fn begun() -> Event {
    Ok(form::begun())
}

fn said(text: &str) -> Event {
    Ok(form::event_to_wire(Ok(ChatEvent::Delta(text.to_owned()))))
}

fn end() -> Event {
    Ok(form::event_to_wire(Ok(ended())))
}

fn ended() -> ChatEvent {
    ChatEvent::End { reason: FinishReason::Stop, usage: TokenUsage { prompt: 1, completion: 1 } }
}

fn refused(kind: InferenceErrorKind, retry_after_ms: Option<u64>) -> Event {
    let error = InferenceError { kind, message: "PV-TEST: no".to_owned(), retry_after_ms };
    Ok(form::event_to_wire(Err(error)))
}

fn gone() -> Event {
    Err(Status::unavailable("the node is gone"))
}

fn ask(model: &str) -> ChatRequest {
    ChatRequest {
        tenant: "acme".to_owned(),
        model: model.to_owned(),
        messages: vec![ChatMessage::new("user", "hello")],
        max_tokens: 8,
        temperature: 0.5,
        top_p: 0.9,
        seed: Some(1),
        stop: vec!["\n".to_owned()],
        logprobs: None,
        schema: None,
        tools: None,
    }
}

fn report(state: ModelState) -> GpuReport {
    let info = ModelInfo {
        name: "m".to_owned(),
        kind: ModelKind::Chat,
        architecture: "llama".to_owned(),
        context_tokens: 64,
        dimensions: 0,
        created: 0,
    };
    let model = ModelReport { info, state, weight_bytes: 1, load_ms: 9_000, waiting: 0, running: 0, tokens_per_s: 0.0 };
    GpuReport {
        models: vec![model],
        places: 64,
        slots: 16,
        service_ms: 10,
        retry_after_ms: 7_000,
        ..GpuReport::default()
    }
}

/// A node that listens, and the way to it.
async fn start(name: &str, report: GpuReport) -> (Arc<Fake>, GpuAddress) {
    let fake = Arc::new(Fake {
        report: Mutex::new(report),
        chats: Mutex::default(),
        embeds: Mutex::default(),
        asked: AtomicUsize::new(0),
        hangs: AtomicBool::new(false),
        was_left: Arc::default(),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = GpuServer::from_arc(fake.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    (fake, GpuAddress { name: name.to_owned(), address, channel })
}

/// Two nodes that are heard: `a` holds the weights, `b` has them on its disk.
async fn two() -> (Arc<Fake>, Arc<Fake>, GpuNodes) {
    let (a, at_a) = start("a", report(ModelState::Resident)).await;
    let (b, at_b) = start("b", report(ModelState::OnDisk)).await;
    let nodes = GpuNodes::new("dp-1", None);
    nodes.set(vec![at_a, at_b]);
    tokio::time::timeout(SOON, nodes.settled()).await.expect("the nodes are heard");
    (a, b, nodes)
}

async fn collect(nodes: &GpuNodes) -> Vec<Result<ChatEvent, InferenceError>> {
    match nodes.chat(ask("m")).await {
        Ok(events) => events.collect().await,
        Err(error) => vec![Err(error)],
    }
}

fn counts(nodes: &GpuNodes, name: &str) -> GpuNodeCounts {
    nodes.views().into_iter().find(|view| view.name == name).unwrap().counts
}

fn hi() -> Vec<Result<ChatEvent, InferenceError>> {
    vec![Ok(ChatEvent::Delta("hi".to_owned())), Ok(ended())]
}

#[tokio::test]
async fn who_holds_the_weights_is_asked() {
    let (a, b, nodes) = two().await;
    for _ in 0..3 {
        assert_eq!(collect(&nodes).await, hi());
    }
    assert_eq!((a.asked(), b.asked()), (3, 0));
    assert_eq!(counts(&nodes, "a").answered, 3);
    assert_eq!(nodes.models().len(), 1, "a model that two nodes have is listed once");
}

#[tokio::test]
async fn a_node_that_is_lost_before_it_told_anything_is_replaced_once() {
    let silent = || Ok(form::event_to_wire(Ok(ChatEvent::Silent)));
    for lost in [vec![gone()], vec![begun(), gone()], vec![begun(), silent(), gone()], vec![begun()], vec![]] {
        let (a, b, nodes) = two().await;
        let has_silent = lost.len() == 3;
        a.chats.lock().push_back(lost);
        let mut expect = hi();
        if has_silent {
            expect.insert(0, Ok(ChatEvent::Silent));
        }
        assert_eq!(collect(&nodes).await, expect);
        assert_eq!((a.asked(), b.asked()), (1, 1));
        assert_eq!(nodes.counts().tried_again, 1);
        assert_eq!((counts(&nodes, "a").lost, counts(&nodes, "b").answered), (1, 1));
    }
}

#[tokio::test]
async fn a_node_that_failed_is_set_aside_until_it_answers() {
    let (_a, _b, nodes) = two().await;
    let wanted = Wanted::of_chat(&ask("m"));
    let pick = || nodes.0.pick("m", wanted, &[]).ok().map(|seat| seat.name().to_owned());
    assert_eq!(pick().as_deref(), Some("a"));
    nodes.0.seats()[0].failed();
    assert_eq!(pick().as_deref(), Some("b"));
    nodes.0.seats()[0].succeeded();
    assert_eq!(pick().as_deref(), Some("a"));
}

#[tokio::test]
async fn a_node_that_is_lost_in_the_middle_ends_the_answer() {
    let (a, b, nodes) = two().await;
    a.chats.lock().push_back(vec![begun(), said("h"), gone()]);
    let told = collect(&nodes).await;
    assert_eq!(told[0], Ok(ChatEvent::Delta("h".to_owned())));
    let error = told[1].clone().unwrap_err();
    assert!(error.message.starts_with("PV-GPU-LOST"), "{error}");
    assert_eq!((told.len(), error.kind), (2, InferenceErrorKind::Failed));
    assert_eq!((b.asked(), nodes.counts().tried_again), (0, 0));
}

#[tokio::test]
async fn an_answer_that_is_shown_at_its_end_is_made_anew() {
    let (a, b, nodes) = two().await;
    a.chats.lock().push_back(vec![begun(), said("h"), said("ello"), gone()]);
    let told: Vec<_> = nodes.chat_whole(ask("m")).await.unwrap().collect().await;
    let silent = || Ok(ChatEvent::Silent);
    // Each token that was made is told as such, the text once.
    assert_eq!(told[..3], [silent(), silent(), silent()]);
    assert_eq!(told[3..], hi());
    assert_eq!((a.asked(), b.asked(), nodes.counts().tried_again), (1, 1, 1));
}

#[tokio::test]
async fn a_request_is_lost_at_two_nodes_and_no_more() {
    let (a, b, nodes) = two().await;
    let (c, at_c) = start("c", report(ModelState::OnDisk)).await;
    let (d, at_d) = start("d", report(ModelState::OnDisk)).await;
    let channel = |address: &str| Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let known: Vec<(String, String)> = nodes.0.peers.load().iter().map(|w| w.peer.place()).collect();
    let known = known.into_iter().map(|(name, address)| GpuAddress { channel: channel(&address), name, address });
    nodes.set(known.chain([at_c, at_d]).collect());
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    for fake in [&a, &b, &c, &d] {
        fake.chats.lock().push_back(vec![begun(), gone()]);
    }
    let told = collect(&nodes).await;
    assert!(told[0].clone().unwrap_err().message.starts_with("PV-GPU-LOST"), "{told:?}");
    assert_eq!(a.asked(), 1, "it holds the weights");
    assert_eq!(b.asked() + c.asked() + d.asked(), 1);
}

#[tokio::test]
async fn refusals_of_nodes_become_that_of_the_one_with_a_place_soonest() {
    let (a, b, nodes) = two().await;
    let busy = InferenceErrorKind::Busy;
    a.chats.lock().push_back(vec![refused(busy, Some(3_000))]);
    b.chats.lock().push_back(vec![refused(busy, Some(5_000))]);
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert_eq!((error.kind, error.retry_after_ms), (busy, Some(3_000)));
    assert_eq!((a.asked(), b.asked()), (1, 1));
    assert_eq!((counts(&nodes, "a").refused, nodes.counts().tried_again), (1, 0));
    // What is wrong with the request is wrong everywhere.
    a.chats.lock().push_back(vec![refused(InferenceErrorKind::InvalidRequest, None)]);
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert_eq!(error.kind, InferenceErrorKind::InvalidRequest);
    assert_eq!((a.asked(), b.asked()), (2, 1));
}

#[tokio::test]
async fn a_node_that_cannot_read_the_request_is_not_lost() {
    let (a, b, nodes) = two().await;
    a.chats.lock().push_back(vec![Err(Status::invalid_argument("PV-GPU-MESSAGE: what is `x`?"))]);
    assert_eq!(collect(&nodes).await, hi());
    assert_eq!((a.asked(), b.asked()), (1, 1));
    let counts = counts(&nodes, "a");
    assert_eq!((counts.failed, counts.lost), (1, 0));
}

#[tokio::test]
async fn full_nodes_are_not_asked_and_their_reports_say_when_to_come_again() {
    let full = |ms| GpuReport { waiting: 64, running: 16, retry_after_ms: ms, ..report(ModelState::Resident) };
    let (a, at_a) = start("a", full(9_000)).await;
    let (b, at_b) = start("b", full(4_000)).await;
    let nodes = GpuNodes::new("dp-1", None);
    nodes.set(vec![at_a, at_b]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert_eq!((error.kind, error.retry_after_ms), (InferenceErrorKind::Busy, Some(4_000)));
    assert_eq!((a.asked(), b.asked(), nodes.counts().full), (0, 0, 1));
}

#[tokio::test]
async fn a_model_that_cannot_be_asked_just_now_is_not_unknown() {
    let (a, at_a) = start("a", GpuReport { draining: true, ..report(ModelState::Resident) }).await;
    let nodes = GpuNodes::new("dp-1", None);
    nodes.set(vec![at_a]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert!(error.message.starts_with("PV-GPU-UNREACHED") && error.retry_after_ms.is_some(), "{error}");
    assert_eq!((a.asked(), nodes.models().len(), nodes.counts().unreached), (0, 1, 1));
    let error = nodes.chat(ask("other")).await.err().unwrap();
    assert_eq!(error.kind, InferenceErrorKind::ModelNotFound);
}

#[tokio::test]
async fn who_lets_go_of_an_answer_has_cancelled_it_there() {
    let (a, _b, nodes) = two().await;
    a.hangs.store(true, SeqCst);
    let events = nodes.chat(ask("m")).await.unwrap();
    assert!(!a.was_left.load(SeqCst));
    drop(events);
    assert!(nodes.0.seats().iter().all(|seat| seat.sent() == 0), "what has ended takes no place");
    let left = async {
        while !a.was_left.load(SeqCst) {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    };
    tokio::time::timeout(SOON, left).await.expect("the node hears of it");
}

#[tokio::test]
async fn texts_are_embedded_elsewhere_if_a_node_is_lost() {
    let (a, b, nodes) = two().await;
    a.embeds.lock().push_back(Err(Status::unavailable("gone")));
    let request = EmbedRequest { tenant: "acme".to_owned(), model: "m".to_owned(), inputs: vec!["x".to_owned()] };
    let answer = nodes.embed(request).await.unwrap();
    assert_eq!(answer.vectors, [[1.0]]);
    assert_eq!((a.asked(), b.asked(), nodes.counts().tried_again), (1, 1, 1));
}

/// The node of this process.
struct Here;

impl Inference for Here {
    fn models(&self) -> Vec<ModelInfo> {
        report(ModelState::Resident).models.into_iter().map(|model| model.info).collect()
    }

    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(async { Ok(EmbedResponse { vectors: vec![], usage: TokenUsage::default() }) })
    }

    fn chat(
        &self,
        _: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(async {
            let events: BoxStream<'static, _> = Box::pin(stream::iter(hi()));
            Ok(events)
        })
    }

    fn report(&self) -> Option<GpuReport> {
        Some(report(ModelState::Resident))
    }
}

#[tokio::test]
async fn the_node_of_this_process_is_one_of_them() {
    let (b, at_b) = start("b", report(ModelState::OnDisk)).await;
    // Its own entry in the member list is not another node.
    let (own, at_own) = start("dp-1", report(ModelState::Resident)).await;
    let nodes = GpuNodes::new("dp-1", Some(Arc::new(Here)));
    nodes.set(vec![at_b, at_own]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    assert_eq!(collect(&nodes).await, hi());
    assert_eq!((own.asked(), b.asked(), counts(&nodes, "dp-1").answered), (0, 0, 1));
}
