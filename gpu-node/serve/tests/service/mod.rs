//! The node as data planes of other processes call it, over a real connection.

use std::sync::Arc;

use futures::StreamExt;
use provost_gpu_serve::{GpuCallers, GpuNode, GpuService};
use provost_types::{
    BoxFuture, ChatEvent, ChatRequest, GpuReport, Inference, InferenceError, InferenceErrorKind, ModelState,
};
use provost_wire::gpu::gpu_client::GpuClient;
use provost_wire::gpu::{Report, TranscribeRequest as WireTranscribe, WatchRequest, WorkRequest};
use provost_wire::gpu_form::{self as form, Said};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Extensions, Status, Streaming};

use crate::common::{Models, chat, embed, sampled, until};
use crate::speech::transcribe;
use crate::start;

/// Lets everybody in, or nobody.
struct Door {
    is_open: bool,
}

impl GpuCallers for Door {
    fn admit<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        let admitted = match self.is_open {
            true => Ok(()),
            false => Err(Status::permission_denied("PV-TEST: not you")),
        };
        Box::pin(std::future::ready(admitted))
    }
}

/// A service that listens, the word that ends it, and a client of it.
async fn serve(node: Arc<GpuNode>, is_open: bool) -> (GpuService, CancellationToken, GpuClient<Channel>) {
    let stopping = CancellationToken::new();
    let service = GpuService::new(node, Arc::new(Door { is_open }), stopping.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(service.server());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    (service, stopping, GpuClient::new(channel))
}

fn work<T: serde::Serialize>(request: &T) -> WorkRequest {
    WorkRequest { body: serde_json::to_vec(request).unwrap().into(), wait_ms: 60_000 }
}

async fn said(client: &mut GpuClient<Channel>, request: &ChatRequest) -> Vec<Said> {
    let events = client.chat(work(request)).await.unwrap().into_inner();
    events.map(|event| form::event(event.unwrap()).unwrap()).collect().await
}

/// Waits for a report that says so.
async fn reported(reports: &mut Streaming<Report>, is_so: impl Fn(&GpuReport) -> bool) -> GpuReport {
    let found = async {
        loop {
            let report = form::report(reports.message().await.unwrap().expect("reports go on"));
            if is_so(&report) {
                return report;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), found).await.expect("it is reported")
}

#[tokio::test]
async fn an_answer_over_the_wire_is_the_answer() {
    let models = Models::new(&["tiny-chat", "tiny-bert"]);
    let node = start(&models);
    let (_service, _stopping, mut client) = serve(node.clone(), true).await;
    let request = sampled("tiny-chat", 7, 12);
    let here: Vec<Said> =
        node.chat(request.clone()).await.unwrap().map(|event| Said::Step(event.unwrap())).collect().await;
    let there = said(&mut client, &request).await;
    assert_eq!(there[0], Said::Begun);
    assert_eq!(there[1..], here[..]);
    assert!(matches!(there.last(), Some(Said::Step(ChatEvent::End { .. }))));

    let request = embed("tiny-bert", &["one", "two"]);
    let answer = client.embed(work(&request)).await.unwrap().into_inner();
    assert_eq!(form::embedded(answer).unwrap().unwrap(), node.embed(request).await.unwrap());

    let unknown = said(&mut client, &chat("nobody", "hi", 4)).await;
    assert!(
        matches!(&unknown[..], [Said::Failed(InferenceError { kind: InferenceErrorKind::ModelNotFound, .. })]),
        "{unknown:?}"
    );
    // What this release does not know may change the answer.
    let mut newer = serde_json::to_value(chat("tiny-chat", "hi", 4)).unwrap();
    newer["mood"] = "good".into();
    for body in [newer, serde_json::json!({ "model": 7 })] {
        let refused = client.chat(work(&body)).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains("PV-GPU-MESSAGE"), "{refused}");
    }
}

#[tokio::test]
async fn a_recording_goes_beside_what_is_asked_of_it() {
    let models = Models::new(&["tiny-whisper"]);
    let node = start(&models);
    let (service, stopping, mut client) = serve(node.clone(), true).await;
    let asked = |request: &provost_types::TranscribeRequest| WireTranscribe {
        body: serde_json::to_vec(request).unwrap().into(),
        sound: request.sound.bytes().clone(),
    };
    let request = transcribe("tiny-whisper", 3);
    let answer = client.transcribe(asked(&request)).await.unwrap().into_inner();
    assert_eq!(form::transcribed(answer), node.transcribe(request.clone()).await);
    let silent = WireTranscribe { sound: Vec::new().into(), ..asked(&request) };
    let refused = form::transcribed(client.transcribe(silent).await.unwrap().into_inner()).unwrap_err();
    assert_eq!(refused.kind, InferenceErrorKind::InvalidRequest, "{refused}");
    // One that stops takes nothing new.
    stopping.cancel();
    let late = form::transcribed(client.transcribe(asked(&request)).await.unwrap().into_inner()).unwrap_err();
    assert_eq!(late.kind, InferenceErrorKind::Busy, "{late}");
    service.drained().await;
}

#[tokio::test]
async fn reports_say_where_models_are_and_how_fast() {
    let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
    let node = start(&models);
    let (_service, _stopping, mut client) = serve(node, true).await;
    let mut reports = client.watch(WatchRequest {}).await.unwrap().into_inner();
    let first = reported(&mut reports, |report| report.models.len() == 2).await;
    let chat_model = first.model("tiny-chat").unwrap();
    assert_eq!((chat_model.state, chat_model.tokens_per_s), (ModelState::OnDisk, 0.0));
    assert!(chat_model.weight_bytes > 400_000 && first.places > 0 && first.slots > 0 && first.capacity_bytes > 0);

    said(&mut client, &chat("tiny-chat", "hello", 8)).await;
    let later = reported(&mut reports, |report| {
        report.model("tiny-chat").is_some_and(|model| model.state == ModelState::Resident && model.tokens_per_s > 0.0)
    })
    .await;
    assert_eq!(later.model("tiny-qwen3").unwrap().state, ModelState::OnDisk);
    assert!(later.used_bytes > 400_000 && later.service_ms < 60_000, "{later:?}");
}

#[tokio::test]
async fn who_is_not_admitted_gets_nothing() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let (_service, _stopping, mut client) = serve(node.clone(), false).await;
    let refusals = [
        client.watch(WatchRequest {}).await.unwrap_err(),
        client.chat(work(&chat("tiny-chat", "hi", 4))).await.unwrap_err(),
        client.embed(work(&embed("tiny-chat", &["x"]))).await.unwrap_err(),
        client.transcribe(WireTranscribe::default()).await.unwrap_err(),
    ];
    assert!(refusals.iter().all(|status| status.code() == Code::PermissionDenied), "{refusals:?}");
    assert_eq!(node.counts().loads, 0);
}

#[tokio::test]
async fn who_lets_go_of_an_answer_has_cancelled_it() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let (_service, _stopping, mut client) = serve(node.clone(), true).await;
    let mut events = client.chat(work(&chat("tiny-chat", "hello", 2_000))).await.unwrap().into_inner();
    assert_eq!(form::event(events.message().await.unwrap().unwrap()), Ok(Said::Begun));
    drop(events);
    until("the answer is given up", || node.counts().running == 0 && node.kv_usage().held == 0).await;
}

#[tokio::test]
async fn a_service_that_stops_ends_what_runs_and_takes_nothing_new() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let (service, stopping, mut client) = serve(node, true).await;
    let mut reports = client.watch(WatchRequest {}).await.unwrap().into_inner();
    let running = client.chat(work(&sampled("tiny-chat", 3, 200))).await.unwrap().into_inner();
    stopping.cancel();
    reported(&mut reports, |report| report.draining).await;
    let refused = said(&mut client, &chat("tiny-chat", "hi", 4)).await;
    assert!(
        matches!(&refused[..], [Said::Failed(InferenceError { kind: InferenceErrorKind::Busy, .. })]),
        "{refused:?}"
    );
    let drained = tokio::spawn(service.drained());
    let events: Vec<_> = running.map(|event| form::event(event.unwrap()).unwrap()).collect().await;
    assert!(matches!(events.last(), Some(Said::Step(ChatEvent::End { .. }))), "{events:?}");
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), drained).await;
    ended.expect("nothing runs any more").unwrap();
}
