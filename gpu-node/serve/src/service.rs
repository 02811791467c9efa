//! The node as data planes of other processes call it.
//!
//! Invariants: whoever asks is a member with the role data-plane, by its certificate; a caller that lets go of its stream
//! has cancelled; a node that stops takes nothing new and ends what runs ([`GpuService::drained`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, future::ready, stream};
use provost_types::{BoxFuture, Inference, InferenceError, Sound, TranscribeRequest};
use provost_wire::gpu::gpu_server::{Gpu, GpuServer};
use provost_wire::gpu::{
    ChatEvent, EmbedResponse, Report, TranscribeRequest as WireTranscribe, TranscribeResponse, WatchRequest,
    WorkRequest,
};
use provost_wire::gpu_form::{self as form, MAX_MESSAGE_BYTES};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Extensions, Request, Response, Status};

use crate::error;
use crate::node::GpuNode;

/// Between two looks for something new to report.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A report is sent after so long even if nothing has changed: it is a sign of life.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The longest time that a caller may let a request wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Who may ask.
pub trait GpuCallers: Send + Sync {
    /// Refuses all but members with the role that the service is for.
    fn admit<'a>(&'a self, connection: &'a Extensions) -> BoxFuture<'a, Result<(), Status>>;
}

/// See the module.
#[derive(Clone)]
pub struct GpuService {
    node: Arc<GpuNode>,
    callers: Arc<dyn GpuCallers>,
    stopping: CancellationToken,
    running: TaskTracker,
}

impl GpuService {
    /// A service that takes nothing new once `stopping` is cancelled.
    pub fn new(node: Arc<GpuNode>, callers: Arc<dyn GpuCallers>, stopping: CancellationToken) -> Self {
        Self { node, callers, stopping, running: TaskTracker::new() }
    }

    /// For the listener of the other nodes.
    pub fn server(&self) -> GpuServer<Self> {
        GpuServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Waits until the service stops and nothing of what it took runs any more.
    pub async fn drained(self) {
        self.stopping.cancelled().await;
        self.running.close();
        self.running.wait().await;
    }

    async fn admitted<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.callers.admit(request.extensions()).await?;
        Ok(request.into_inner())
    }

    /// Begins something that must begin in time.
    async fn begin<T>(
        &self,
        wait_ms: u64,
        work: impl Future<Output = Result<T, InferenceError>>,
    ) -> Result<T, InferenceError> {
        if self.stopping.is_cancelled() {
            return Err(error::stopping());
        }
        let limit = match wait_ms {
            0 => LONGEST_WAIT,
            ms => Duration::from_millis(ms).min(LONGEST_WAIT),
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(error::waited_too_long()))
    }
}

#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    // What it says of the text stays inside: it may hold a part of it.
    serde_json::from_slice(body).map_err(|cause| {
        let (line, column) = (cause.line(), cause.column());
        Status::invalid_argument(format!(
            "PV-GPU-MESSAGE: the request cannot be read at line {line}, column {column}; do both nodes run the same release?"
        ))
    })
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Gpu for GpuService {
    type WatchStream = Events<Report>;
    type ChatStream = Events<ChatEvent>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.admitted(request).await?;
        let watched = Watched { service: self.clone(), last: None };
        let reports = stream::unfold(watched, |mut watched| async move {
            let report = watched.next().await;
            Some((Ok(report), watched))
        });
        Ok(Response::new(Box::pin(reports)))
    }

    async fn chat(&self, request: Request<WorkRequest>) -> Result<Response<Self::ChatStream>, Status> {
        let asked = self.admitted(request).await?;
        let runs = self.running.token();
        let begun = self.begin(asked.wait_ms, self.node.chat(read(&asked.body)?)).await;
        let events: Self::ChatStream = match begun {
            Err(failure) => Box::pin(stream::once(ready(Ok(form::event_to_wire(Err(failure)))))),
            Ok(events) => {
                let events = events.map(move |said| {
                    let _runs = &runs;
                    Ok(form::event_to_wire(said))
                });
                Box::pin(stream::once(ready(Ok(form::begun()))).chain(events))
            }
        };
        Ok(Response::new(events))
    }

    async fn embed(&self, request: Request<WorkRequest>) -> Result<Response<EmbedResponse>, Status> {
        let asked = self.admitted(request).await?;
        let _runs = self.running.token();
        let outcome = self.begin(0, self.node.embed(read(&asked.body)?)).await;
        Ok(Response::new(form::embedded_to_wire(outcome)))
    }

    async fn transcribe(&self, request: Request<WireTranscribe>) -> Result<Response<TranscribeResponse>, Status> {
        let asked = self.admitted(request).await?;
        let _runs = self.running.token();
        let request = TranscribeRequest { sound: Sound::new(asked.sound), ..read(&asked.body)? };
        // The node lets it wait for a bounded time, and what it computes of it has an end: a long recording takes its time.
        let outcome = match self.stopping.is_cancelled() {
            true => Err(error::stopping()),
            false => self.node.transcribe(request).await,
        };
        Ok(Response::new(form::transcribed_to_wire(outcome)))
    }
}

/// The node as one caller sees it.
struct Watched {
    service: GpuService,
    last: Option<(Report, Instant)>,
}

impl Watched {
    /// The next report: at once at first, then what has changed, or the same as a sign of life.
    async fn next(&mut self) -> Report {
        loop {
            let mut report = form::report_to_wire(&self.service.node.report().unwrap_or_default());
            report.draining = self.service.stopping.is_cancelled();
            let is_due = match &self.last {
                None => true,
                Some((last, at)) => *last != report || at.elapsed() >= REPORT_EVERY,
            };
            if is_due {
                self.last = Some((report.clone(), Instant::now()));
                return report;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
