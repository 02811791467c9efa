//! OpenTelemetry logs: `ExportLogsServiceRequest` as JSON over HTTP (OTLP 1.x).
//!
//! The receiver took a batch when it answers 2xx. What it then calls rejected is counted and not
//! sent again, as the protocol demands. Anything else is sent again, a refusal (4xx) too: records
//! are never passed over because a path or a token is wrong.

use std::{fs, path::PathBuf, time::Duration};

use provost_audit_core::Record;
use provost_types::{BoxFuture, CallStatus, Phase};
use reqwest::{Certificate, Client, StatusCode, Url, header};
use serde_json::{Value, json};

use super::{Receiver, Refused, Sent, Taken};
use crate::export::phase_of;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The longest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// An OTLP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpTarget {
    /// The whole address, such as `https://collector:4318/v1/logs`.
    pub url: String,
    /// Authorities (PEM) to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// A file with the value of the `Authorization` header; read again for each batch.
    pub authorization_file: Option<PathBuf>,
}

pub(super) struct Otlp {
    url: Url,
    client: Client,
    authorization_file: Option<PathBuf>,
}

impl Otlp {
    pub(super) fn new(target: OtlpTarget) -> Result<Self, String> {
        let url = Url::parse(&target.url).map_err(|e| format!("`{}`: {e}", target.url))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("`{}` is not an http:// or https:// address", target.url));
        }
        // The process has one provider of cryptography; that it is set already is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = Client::builder().connect_timeout(CONNECT_LIMIT).redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &target.ca {
            let wrong = |why: String| format!("{}: {why}", path.display());
            let pem = fs::read(path).map_err(|e| wrong(e.to_string()))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|e| wrong(e.to_string()))?;
            if authorities.is_empty() {
                return Err(wrong("it holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_only(authorities);
        }
        let client = builder.build().map_err(|e| e.to_string())?;
        Ok(Self { url, client, authorization_file: target.authorization_file })
    }

    async fn send(&self, batch: &[Sent]) -> Result<Taken, Refused> {
        let body = serde_json::to_vec(&request(batch)).map_err(Refused::new)?;
        let mut post = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json").body(body);
        if let Some(path) = &self.authorization_file {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|e| Refused::new(format!("{}: {e}", path.display())))?;
            let mut value = header::HeaderValue::from_str(text.trim())
                .map_err(|_| Refused::new(format!("{}: not a header's value", path.display())))?;
            value.set_sensitive(true);
            post = post.header(header::AUTHORIZATION, value);
        }
        let mut response = post.send().await.map_err(|e| Refused::new(causes(&e)))?;
        let status = response.status();
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| Refused::new(causes(&e)))? {
            if answer.len() + part.len() > MAX_ANSWER_BYTES {
                break;
            }
            answer.extend_from_slice(&part);
        }
        if !status.is_success() {
            return Err(Refused { why: refusal(status), wait: wait.map(Duration::from_secs) });
        }
        Ok(Taken { rejected: rejected(&answer) })
    }
}

impl Receiver for Otlp {
    fn deliver<'a>(&'a mut self, batch: &'a [Sent]) -> BoxFuture<'a, Result<Taken, Refused>> {
        Box::pin(async move {
            let name = self.url.host_str().unwrap_or_default().to_owned();
            self.send(batch).await.map_err(|refused| Refused { why: format!("{name}: {}", refused.why), ..refused })
        })
    }
}

fn refusal(status: StatusCode) -> String {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "it asks for a pause (429)".to_owned(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!("it does not let us in ({status})"),
        status => format!("it answers {status}"),
    }
}

/// `partialSuccess.rejectedLogRecords`: a 64-bit number, in JSON a text.
fn rejected(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedLogRecords"];
    let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or_default();
    if rejected > 0 {
        let why = answer["partialSuccess"]["errorMessage"].as_str().unwrap_or_default();
        tracing::warn!(rejected, %why, "PV-AUDIT-FORWARD: the receiver took a batch and rejected records of it for good");
    }
    rejected
}

fn request(batch: &[Sent]) -> Value {
    let records: Vec<Value> = batch.iter().map(log_record).collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceLogs": [{
        "resource": { "attributes": [text("service.name", "provost"), text("service.version", version)] },
        "scopeLogs": [{ "scope": { "name": "provost.audit", "version": version }, "logRecords": records }],
    }]})
}

/// The stored bytes as body; the record's keys, which are OpenTelemetry's where there are such, as
/// attributes.
fn log_record(sent: &Sent) -> Value {
    let record = &sent.found.record;
    let (severity, severity_text) = severity(record);
    let mut attributes = vec![
        text("provost.audit.log", &sent.origin),
        json!({ "key": "provost.audit.index", "value": { "intValue": sent.found.index.to_string() } }),
        text("provost.audit.leaf_hash", &sent.found.leaf_hash.to_string()),
    ];
    if let Ok(Value::Object(fields)) = serde_json::from_str(&sent.found.leaf) {
        attributes.extend(fields.iter().map(|(key, value)| json!({ "key": key, "value": any(value) })));
    }
    let mut out = json!({
        "timeUnixNano": record.time_ns.to_string(),
        "observedTimeUnixNano": record.time_ns.to_string(),
        "severityNumber": severity,
        "severityText": severity_text,
        "eventName": format!("provost.audit.{}", phase_of(record)),
        "body": { "stringValue": sent.found.leaf },
        "attributes": attributes,
    });
    let mut trace = record.traceparent.as_deref().unwrap_or_default().split('-').skip(1);
    if let (Some(trace), Some(span)) = (trace.next(), trace.next())
        && trace.len() == 32
        && span.len() == 16
    {
        out["traceId"] = Value::from(trace);
        out["spanId"] = Value::from(span);
    }
    out
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn any(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(items) => json!({ "arrayValue": { "values": items.iter().map(any).collect::<Vec<_>>() } }),
        // Numbers of 64 bits are texts in OTLP's JSON.
        other => json!({ "intValue": other.to_string() }),
    }
}

fn severity(record: &Record<'_>) -> (u8, &'static str) {
    match (record.phase, record.status) {
        (Phase::Denied, _) | (_, Some(CallStatus::Unknown | CallStatus::Denied)) => (13, "WARN"),
        (_, None | Some(CallStatus::Ok | CallStatus::InputRequired)) => (9, "INFO"),
        (_, Some(_)) => (10, "INFO2"),
    }
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
