//! One GPU node of another process, as this data plane sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::Mutex;
use provost_types::{EmbedResponse, GpuReport, InferenceError, InferenceErrorKind, ModelInfo, Transcript};
use provost_wire::gpu::{Report, TranscribeRequest, WatchRequest, WorkRequest, gpu_client::GpuClient};
use provost_wire::gpu_form::{self as form, MAX_MESSAGE_BYTES, Said};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    aside::Aside,
    asked::{Chat, Embed, Transcribe},
    seat::{Fault, Steps},
};
use crate::push::Backoff;

/// A node whose last report is older gets no requests.
const STALE_AFTER: Duration = Duration::from_secs(4);
/// Models of a node that is not heard are known for so long: callers are told to come again, and not that there is none.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// A node that is new to this one may have any model for so long, until it is heard.
const NEW_FOR: Duration = Duration::from_secs(10);
/// Between two tries to hear it.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What is known of it.
#[derive(Debug, Default)]
struct Seen {
    report: Arc<GpuReport>,
    /// When that came.
    at: Option<Instant>,
    /// The stream of reports stands.
    is_heard: bool,
    /// Reports that came.
    reports: u64,
    /// Requests that were sent since the last one, and have not ended: no report has them.
    sent: u64,
    aside: Aside,
}

/// See the module.
pub(super) struct Peer {
    name: String,
    address: String,
    channel: Channel,
    since: Instant,
    seen: Mutex<Seen>,
}

/// A request that was sent, until it ends.
struct Sent {
    peer: Arc<Peer>,
    /// How many reports had come.
    reports: u64,
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut seen = self.peer.seen.lock();
        if seen.reports == self.reports {
            seen.sent = seen.sent.saturating_sub(1);
        }
    }
}

/// Whether it has a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    Yes,
    No,
    /// It has not said so yet.
    Perhaps,
}

impl Peer {
    pub(super) fn new(name: String, address: String, channel: Channel) -> Self {
        Self { name, address, channel, since: Instant::now(), seen: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_at(&self, name: &str, address: &str) -> bool {
        self.name == name && self.address == address
    }

    /// Name and address.
    #[cfg(test)]
    pub(super) fn place(&self) -> (String, String) {
        (self.name.clone(), self.address.clone())
    }

    fn client(&self) -> GpuClient<Channel> {
        GpuClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Hears what the node says of itself. Has no end of its own.
    pub(super) async fn watch(&self) {
        let mut again = Backoff::new(AGAIN);
        loop {
            let cause = match self.client().watch(WatchRequest {}).await {
                Ok(reports) => self.hear(reports.into_inner(), &mut again).await,
                Err(status) => status.message().to_owned(),
            };
            let was_heard = std::mem::take(&mut self.seen.lock().is_heard);
            if was_heard {
                tracing::warn!(node = self.name, cause, "a GPU node is not heard any more");
            }
            tokio::time::sleep(again.next(rand::random())).await;
        }
    }

    /// Takes reports until none comes; why.
    async fn hear(&self, mut reports: Streaming<Report>, again: &mut Backoff) -> String {
        loop {
            let report = match tokio::time::timeout(STALE_AFTER, reports.message()).await {
                Ok(Ok(Some(report))) => form::report(report),
                Ok(Ok(None)) => return "it ended its reports".to_owned(),
                Ok(Err(status)) => return status.message().to_owned(),
                Err(_) => return format!("no report in {STALE_AFTER:?}"),
            };
            again.reset();
            let mut seen = self.seen.lock();
            if !std::mem::replace(&mut seen.is_heard, true) {
                tracing::info!(node = self.name, models = report.models.len(), "a GPU node is heard");
            }
            (seen.report, seen.at, seen.sent) = (Arc::new(report), Some(Instant::now()), 0);
            seen.reports = seen.reports.wrapping_add(1);
        }
    }

    /// What it said last, if it may get requests.
    pub(super) fn report(&self) -> Option<Arc<GpuReport>> {
        let (seen, now) = (self.seen.lock(), Instant::now());
        let is_fresh = seen.is_heard && seen.at.is_some_and(|at| now.duration_since(at) < STALE_AFTER);
        (is_fresh && !seen.report.draining && seen.aside.remaining(now).is_none()).then(|| seen.report.clone())
    }

    /// The models that it has, or had when it was heard last.
    pub(super) fn models(&self) -> Vec<ModelInfo> {
        let seen = self.seen.lock();
        match seen.at.is_some_and(|at| at.elapsed() < KNOWN_FOR) {
            true => seen.report.models.iter().map(|model| model.info.clone()).collect(),
            false => Vec::new(),
        }
    }

    pub(super) fn has(&self, model: &str) -> Has {
        let seen = self.seen.lock();
        match seen.at {
            None if self.since.elapsed() < NEW_FOR => Has::Perhaps,
            Some(at) if at.elapsed() < KNOWN_FOR && seen.report.model(model).is_some() => Has::Yes,
            _ => Has::No,
        }
    }

    /// Whether a model that it has is there for a tenant, by what it said last; `None`: it does not have it.
    pub(super) fn shows(&self, model: &str, tenant: &str) -> Option<bool> {
        let seen = self.seen.lock();
        let has = seen.at.is_some_and(|at| at.elapsed() < KNOWN_FOR) && seen.report.model(model).is_some();
        has.then(|| seen.report.tenants.get(model).is_none_or(|tenants| tenants.contains(tenant)))
    }

    /// The model that one of its models is an adapter over, by what it said last.
    pub(super) fn base_of(&self, model: &str) -> Option<String> {
        let seen = self.seen.lock();
        seen.at.filter(|at| at.elapsed() < KNOWN_FOR)?;
        seen.report.bases.get(model).cloned()
    }

    /// Whether it was heard, or is known for long enough that it would have been.
    pub(super) fn is_settled(&self) -> bool {
        self.seen.lock().at.is_some() || self.since.elapsed() >= NEW_FOR
    }

    /// For those who watch: what it said last, whether it is heard, and whether it is set aside.
    pub(super) fn standing(&self) -> (Arc<GpuReport>, bool, bool) {
        let (seen, now) = (self.seen.lock(), Instant::now());
        (seen.report.clone(), seen.is_heard, seen.aside.remaining(now).is_some())
    }

    pub(super) fn sent(&self) -> u64 {
        self.seen.lock().sent
    }

    /// Requests are lost there: it gets none for a while.
    pub(super) fn failed(&self) {
        self.seen.lock().aside.failed(Instant::now());
    }

    pub(super) fn succeeded(&self) {
        self.seen.lock().aside.succeeded();
    }

    /// When it may get requests again, if it is set aside.
    pub(super) fn aside(&self) -> Option<Duration> {
        self.seen.lock().aside.remaining(Instant::now())
    }

    fn send(self: &Arc<Self>) -> Sent {
        let mut seen = self.seen.lock();
        seen.sent += 1;
        Sent { peer: self.clone(), reports: seen.reports }
    }

    pub(super) async fn chat(self: &Arc<Self>, chat: &Chat) -> Result<Steps, Fault> {
        let request = WorkRequest { body: chat.body().map_err(Fault::Said)?, wait_ms: chat.wait_ms() };
        let sent = self.send();
        let mut events = self.client().chat(request).await.map_err(lost)?.into_inner();
        match events.message().await.map_err(lost)?.map(form::event) {
            Some(Ok(Said::Begun)) => {}
            Some(Ok(Said::Failed(error))) => return Err(Fault::Said(error)),
            Some(Ok(Said::Step(_))) => return Err(Fault::Lost("an answer came before it had begun".to_owned())),
            Some(Err(malformed)) => return Err(Fault::Lost(malformed.to_string())),
            None => return Err(Fault::Lost("it ended the answer before it had begun".to_owned())),
        }
        Ok(Box::pin(events.map(move |event| {
            // As long as somebody listens.
            let _sent = &sent;
            match event.map(form::event) {
                Ok(Ok(Said::Step(step))) => Ok(step),
                Ok(Ok(Said::Failed(error))) => Err(Fault::Said(error)),
                Ok(Ok(Said::Begun)) => Err(Fault::Lost("an answer began twice".to_owned())),
                Ok(Err(malformed)) => Err(Fault::Lost(malformed.to_string())),
                Err(status) => Err(lost(status)),
            }
        })))
    }

    pub(super) async fn embed(self: &Arc<Self>, embed: &Embed) -> Result<EmbedResponse, Fault> {
        let request = WorkRequest { body: embed.body().map_err(Fault::Said)?, wait_ms: 0 };
        let _sent = self.send();
        let response = self.client().embed(request).await.map_err(lost)?.into_inner();
        match form::embedded(response) {
            Ok(outcome) => outcome.map_err(Fault::Said),
            Err(malformed) => Err(Fault::Lost(malformed.to_string())),
        }
    }

    pub(super) async fn transcribe(self: &Arc<Self>, asked: &Transcribe) -> Result<Transcript, Fault> {
        let body = asked.body().map_err(Fault::Said)?;
        let request = TranscribeRequest { body, sound: asked.request.sound.bytes().clone() };
        let _sent = self.send();
        let response = self.client().transcribe(request).await.map_err(lost)?.into_inner();
        form::transcribed(response).map_err(Fault::Said)
    }
}

/// What the node has to say it says in a message: whatever else comes as a status is of the way to it, or as good as that.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn lost(status: Status) -> Fault {
    if status.code() == Code::InvalidArgument {
        // It cannot read the request, such as one with something that its release does not know: others may.
        let message = status.message().to_owned();
        return Fault::Said(InferenceError { kind: InferenceErrorKind::Failed, message, retry_after_ms: None });
    }
    if status.code() == Code::OutOfRange {
        // A message is larger than those that are sent: so it is with every node, and none is lost by that.
        let message =
            format!("PV-GPU-MESSAGE: request or answer has more than {MAX_MESSAGE_BYTES} bytes; ask for less at once");
        return Fault::Said(InferenceError { kind: InferenceErrorKind::InvalidRequest, message, retry_after_ms: None });
    }
    Fault::Lost(format!("{:?}: {}", status.code(), status.message()))
}
