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
use provost_wire::gpu::{
    self as wire, EmbedResponse as WireEmbedded, Report, TranscribeResponse as Transcribed, WatchRequest, WorkRequest,
};
use provost_wire::gpu_form as form;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Endpoint};

use super::*;

mod lost;
mod places;

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
    speeches: Mutex<VecDeque<Result<Transcribed, Status>>>,
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

    async fn transcribe(&self, request: Request<wire::TranscribeRequest>) -> Result<Response<Transcribed>, Status> {
        self.asked.fetch_add(1, SeqCst);
        let wire::TranscribeRequest { body, sound } = request.into_inner();
        let read: TranscribeRequest = serde_json::from_slice(&body).unwrap();
        assert!(read.sound.bytes().is_empty(), "it goes beside the rest");
        let text = format!("{} bytes of {}", sound.len(), read.tenant);
        let one = || Ok(Transcribed { text, ..Transcribed::default() });
        self.speeches.lock().pop_front().unwrap_or_else(one).map(Response::new)
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
        prompt: None,
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
        speeches: Mutex::default(),
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
