//! The task that sends traces.

use std::{sync::Arc, time::Duration};

use prost::Message;
use provost_data_serve::observe::{CallTrace, Ratio, Tracing};
use reqwest::{Certificate, Client, StatusCode, Url, header};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    otlp::{KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, TraceRequest, TraceResponse},
    spans::spans,
};
use crate::{config::telemetry::TelemetryConfig, failure::Failure};

/// Calls that wait to be sent; of more, the newest are dropped. About 1 KiB each.
const QUEUE_CALLS: usize = 8_192;
/// Calls in one request; a call has ten spans.
const MAX_BATCH_CALLS: usize = 512;
/// How long a batch waits for more.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// One request gets so long.
const POST_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The pauses before further tries of a batch; after the last it is given up.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// At the end, what waits gets so long.
const LAST_LIMIT: Duration = Duration::from_millis(800);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Where a receiver takes traces, below its address.
const PATH: &str = "v1/traces";

/// The sending of traces, while it runs.
pub struct Exporting {
    tracing: Arc<Tracing>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Exporting {
    /// Starts it; connects to nothing yet.
    pub fn start(config: &TelemetryConfig, node: &str) -> anyhow::Result<Option<Self>> {
        let Some(address) = &config.otlp else { return Ok(None) };
        let unusable = |text: String| {
            Failure::new("PV-TELEMETRY", text, "change [telemetry] of the configuration, or leave it out")
        };
        let ratio = Ratio::new(config.ratio).ok_or_else(|| unusable("telemetry.ratio is not a share".to_owned()))?;
        let url = traces_url(address).map_err(&unusable)?;
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(POST_LIMIT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &config.ca {
            let wrong = |why: String| unusable(format!("telemetry.ca: {}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|cause| wrong(cause.to_string()))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|cause| wrong(cause.to_string()))?;
            builder = builder.tls_certs_only(authorities);
        }
        let client = builder.build().map_err(|cause| unusable(cause.to_string()))?;
        let (tracing, calls) = Tracing::new(ratio, QUEUE_CALLS);
        let exporter = Exporter {
            calls,
            tracing: tracing.clone(),
            client,
            url,
            authorization_file: config.authorization_file.clone(),
            resource: resource(node),
            last_cause: None,
            rejects: false,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(exporter.run(stop.clone()));
        tasks.close();
        Ok(Some(Self { tracing, tasks, stop }))
    }

    /// What a node tells of its calls.
    pub fn tracing(&self) -> &Arc<Tracing> {
        &self.tracing
    }

    /// Sends what waits, for a bounded time. Once no call runs any more.
    pub async fn close(&self) {
        self.stop.cancel();
        if tokio::time::timeout(LAST_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("PV-TELEMETRY: the last traces were not sent in time");
        }
    }
}

/// Where traces go at a receiver's address. What is wrong with one is said without it: it may hold a secret.
fn traces_url(address: &str) -> Result<Url, String> {
    let mut url = Url::parse(address).map_err(|cause| format!("telemetry.otlp: {cause}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("telemetry.otlp is not an http:// or https:// address".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("telemetry.otlp holds a user name or a password: those go into authorization_file".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(PATH) {
        url.set_path(&format!("{path}/{PATH}"));
    }
    Ok(url)
}

/// What all spans of this process have in common.
fn resource(node: &str) -> Resource {
    let attributes = vec![
        KeyValue::text("service.name", "provost"),
        KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::text("service.instance.id", node),
    ];
    Resource { attributes }
}

struct Exporter {
    calls: mpsc::Receiver<CallTrace>,
    tracing: Arc<Tracing>,
    client: Client,
    url: Url,
    authorization_file: Option<std::path::PathBuf>,
    resource: Resource,
    /// Why the last batch was not taken: the same is said once.
    last_cause: Option<String>,
    /// Whether of the last batch that was taken spans were rejected: said once too.
    rejects: bool,
}

/// Why a batch was not taken.
struct Refused {
    why: String,
    /// Whether it may be taken later.
    is_temporary: bool,
}

impl Exporter {
    async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(MAX_BATCH_CALLS);
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.calls.recv_many(&mut batch, MAX_BATCH_CALLS) => if count == 0 { return },
            }
            self.fill(&mut batch, &stop).await;
            self.deliver(&mut batch, &stop).await;
        }
        // Bounded by whoever waits for the end.
        loop {
            while batch.len() < MAX_BATCH_CALLS
                && let Ok(call) = self.calls.try_recv()
            {
                batch.push(call);
            }
            if batch.is_empty() {
                return;
            }
            self.deliver(&mut batch, &stop).await;
        }
    }

    /// Waits for more until the batch is full or has waited enough.
    async fn fill(&mut self, batch: &mut Vec<CallTrace>, stop: &CancellationToken) {
        let until = Instant::now() + BATCH_DELAY;
        while batch.len() < MAX_BATCH_CALLS {
            let room = MAX_BATCH_CALLS - batch.len();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                count = self.calls.recv_many(batch, room) => if count == 0 { return },
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    /// Sends a batch, or gives it up; it is empty then.
    async fn deliver(&mut self, batch: &mut Vec<CallTrace>, stop: &CancellationToken) {
        let body = self.body(batch);
        let mut pauses = PAUSES.into_iter();
        let refused = loop {
            let refused = match self.post(body.clone()).await {
                Ok(rejected) => {
                    self.rejected(rejected);
                    break None;
                }
                Err(refused) => refused,
            };
            match pauses.next().filter(|_| refused.is_temporary && !stop.is_cancelled()) {
                Some(pause) => tokio::select! { () = tokio::time::sleep(pause) => (), () = stop.cancelled() => () },
                None => break Some(refused.why),
            }
        };
        match &refused {
            None => self.tracing.sent(batch.len()),
            Some(why) => {
                self.tracing.lost(batch.len());
                if self.last_cause.as_ref() != Some(why) {
                    let receiver = self.url.host_str().unwrap_or_default();
                    tracing::warn!(receiver, calls = batch.len(), %why, "PV-TELEMETRY: traces are not taken and are given up");
                }
            }
        }
        self.last_cause = refused;
        batch.clear();
    }

    fn body(&self, batch: &[CallTrace]) -> bytes::Bytes {
        let scope = Scope { name: "provost".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = ScopeSpans { scope: Some(scope), spans: batch.iter().flat_map(spans).collect() };
        let resource = Some(self.resource.clone());
        let request = TraceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans: vec![scope_spans] }] };
        request.encode_to_vec().into()
    }

    /// A receiver took a batch but for so many of its spans.
    fn rejected(&mut self, spans: i64) {
        if spans > 0 && !self.rejects {
            tracing::warn!(spans, "PV-TELEMETRY: the receiver took a batch and rejected spans of it");
        }
        self.rejects = spans > 0;
    }

    /// Gives how many spans were rejected of those that are taken.
    async fn post(&self, body: bytes::Bytes) -> Result<i64, Refused> {
        let temporary = |why: String| Refused { why, is_temporary: true };
        let mut post = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/x-protobuf");
        if let Some(path) = &self.authorization_file {
            let said = |why: &str| temporary(format!("telemetry.authorization_file {}: {why}", path.display()));
            let text = tokio::fs::read_to_string(path).await.map_err(|cause| said(&cause.to_string()))?;
            let mut value =
                header::HeaderValue::from_str(text.trim()).map_err(|_| said("it is not the value of a header"))?;
            value.set_sensitive(true);
            post = post.header(header::AUTHORIZATION, value);
        }
        let mut response = post.body(body).send().await.map_err(|cause| temporary(causes(&cause)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(Refused { why: format!("it answers {status}"), is_temporary: may_pass(status) });
        }
        let mut answer = Vec::new();
        while let Ok(Some(part)) = response.chunk().await {
            if answer.len() + part.len() > MAX_ANSWER_BYTES {
                return Ok(0);
            }
            answer.extend_from_slice(&part);
        }
        let partial = TraceResponse::decode(&answer[..]).ok().and_then(|answer| answer.partial_success);
        Ok(partial.map_or(0, |partial| partial.rejected_spans))
    }
}

/// The answers after which OTLP lets a batch be sent again.
fn may_pass(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// An error with its causes, without the address (it may hold a secret).
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::from("the request failed");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_the_receiver_or_of_its_traces() {
        for (address, expect) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://c.example.org/otlp/", "https://c.example.org/otlp/v1/traces"),
            ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ] {
            assert_eq!(traces_url(address).unwrap().as_str(), expect);
        }
        for bad in ["collector:4318", "grpc://c:4317", "", "http://", "http://me:secret@c:4318", "secret://[::"] {
            let said = traces_url(bad).unwrap_err();
            assert!(!said.contains("secret"), "{bad}: {said}");
        }
    }
}
