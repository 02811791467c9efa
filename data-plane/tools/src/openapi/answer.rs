//! The service's answer as the result of a tool.
//!
//! JSON is the structured result, byte for byte: an object as it is, a list as `items`, anything else as `value`; the
//! same is there as text. Text is text, and what is neither comes in Base64. A refusal is a result that says so, so
//! that a model can read why; what speaks of the service itself (its credentials, its load, its failure) is an error
//! of the upstream, which its breaker counts.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use provost_mcp::{JsonLimits, RawJson, RawObject};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::body::{essence, is_json};
use crate::{UpstreamError, redact::Redactor, upstream::shown};

/// Nesting of an answer. The result around it takes a few levels of what is read in the end.
const MAX_DEPTH: u32 = 100;
/// Characters of a refusal that are shown.
const MAX_PROBLEM_CHARS: usize = 4_000;
/// Characters of a media type that are passed on.
const MAX_KIND_CHARS: usize = 100;
/// When to come again if a busy service does not say, and the longest time that it may say.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(3_600);

/// A whole answer, as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a success brings.
#[derive(Debug)]
pub(super) enum Content {
    Json(RawJson),
    Text(String),
    /// A media type, and Base64.
    Blob(String, String),
    Empty,
}

impl Answer {
    /// What it brings, if it says success. `Ok(Err(_))`: it says that the request was wrong, in these words.
    pub(super) fn read(self, redactor: &Redactor, max_bytes: usize) -> Result<Result<Content, String>, UpstreamError> {
        let status = self.status;
        match status.as_u16() {
            200..=299 => self.content(redactor, max_bytes).map(Ok),
            401 | 403 => Err(UpstreamError::Unauthorized(status.as_u16())),
            429 => {
                let retry = retry_after(&self.headers, SystemTime::now());
                let retry_after_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                Err(UpstreamError::Crowded { cause: "the service answered HTTP 429".to_owned(), retry_after_ms })
            }
            400..=499 => Ok(Err(self.problem(redactor))),
            300..=399 => {
                let body = "it leads elsewhere, which is not followed".to_owned();
                Err(UpstreamError::Http { status: status.as_u16(), body })
            }
            _ => {
                let body = self.brief().unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned());
                Err(UpstreamError::Http { status: status.as_u16(), body: shown(body.as_bytes(), redactor) })
            }
        }
    }

    fn kind(&self) -> String {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        essence(kind).chars().take(MAX_KIND_CHARS).collect()
    }

    fn content(self, redactor: &Redactor, max_bytes: usize) -> Result<Content, UpstreamError> {
        if self.body.is_empty() {
            return Ok(Content::Empty);
        }
        let kind = self.kind();
        if is_json(&kind) {
            let limits = JsonLimits { max_bytes, max_depth: MAX_DEPTH };
            return Ok(Content::Json(RawJson::check(redactor.message(self.body), &limits)?));
        }
        let is_text = kind.is_empty() || kind.starts_with("text/") || kind.ends_with("+xml") || kind.ends_with("/xml");
        match std::str::from_utf8(&self.body) {
            Ok(text) if is_text => Ok(Content::Text(redactor.text(text).into_owned())),
            _ if redactor.is_in(&self.body) => {
                Err(UpstreamError::Garbage("it holds one of our credentials".to_owned()))
            }
            _ => {
                let kind = if kind.is_empty() { "application/octet-stream".to_owned() } else { kind };
                let kind = redactor.text(&kind).into_owned();
                Ok(Content::Blob(kind, BASE64_STANDARD.encode(&self.body)))
            }
        }
    }

    /// Title and detail, if it is a problem of RFC 9457 or looks like one.
    fn brief(&self) -> Option<String> {
        if !is_json(&self.kind()) {
            return None;
        }
        let problem: Value = serde_json::from_slice(&self.body).ok()?;
        let texts: Vec<&str> = ["title", "detail"].iter().filter_map(|m| problem.get(m)?.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join(": "))
    }

    /// A refusal, for a model to read: its status, what it says in brief, and all of it.
    fn problem(&self, redactor: &Redactor) -> String {
        let reason = self.status.canonical_reason().unwrap_or("refused");
        let mut text = format!("HTTP {} {reason}", self.status.as_u16());
        if let Some(brief) = self.brief() {
            text.push_str(&format!(". {brief}"));
        }
        let kind = self.kind();
        if is_json(&kind) || kind.starts_with("text/plain") {
            let body = String::from_utf8_lossy(&self.body);
            text.push_str(&format!("\n{}", body.trim()));
        }
        let text = redactor.text(&text);
        text.trim().chars().take(MAX_PROBLEM_CHARS).collect()
    }
}

/// When a busy service wants to be asked again (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Duration {
    let text = headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).unwrap_or_default().trim();
    let wanted = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => OffsetDateTime::parse(text, &Rfc2822)
            .ok()
            .map(|at| Duration::try_from(at - OffsetDateTime::from(now)).unwrap_or_default()),
    };
    wanted.unwrap_or(DEFAULT_RETRY).min(MAX_RETRY)
}

impl Content {
    /// The result of a tool. `note`: what is to be said beside it.
    pub(super) fn into_result(self, tool: &str, status: StatusCode, note: Option<&str>) -> RawJson {
        let mut blocks = Vec::new();
        let mut structured = None;
        match self {
            Self::Json(json) => {
                blocks.push(json!({"type": "text", "text": json.as_str()}));
                structured = Some(as_object(json));
            }
            Self::Text(text) => blocks.push(json!({"type": "text", "text": text})),
            Self::Blob(kind, data) if kind.starts_with("image/") => {
                blocks.push(json!({"type": "image", "mimeType": kind, "data": data}));
            }
            Self::Blob(kind, data) if kind.starts_with("audio/") => {
                blocks.push(json!({"type": "audio", "mimeType": kind, "data": data}));
            }
            Self::Blob(kind, data) => {
                let resource = json!({"uri": format!("answer:{tool}"), "mimeType": kind, "blob": data});
                blocks.push(json!({"type": "resource", "resource": resource}));
            }
            Self::Empty => {
                let text = format!("HTTP {}, without content", status.as_u16());
                blocks.push(json!({"type": "text", "text": text}));
            }
        }
        blocks.extend(note.map(|note| json!({"type": "text", "text": note})));
        let mut result = RawObject::new();
        result.set("content", RawJson::from(Value::Array(blocks)));
        if let Some(structured) = structured {
            result.set("structuredContent", structured);
        }
        result.finish()
    }
}

/// What MCP takes as a structured result: an object.
pub(crate) fn as_object(json: RawJson) -> RawJson {
    if json.is_object() {
        return json;
    }
    let member = if json.as_bytes().first() == Some(&b'[') { "items" } else { "value" };
    let mut object = RawObject::new();
    object.set(member, json);
    object.finish()
}

/// A refusal as the result of a tool.
pub(crate) fn refusal(text: &str) -> RawJson {
    RawJson::from(json!({"content": [{"type": "text", "text": text}], "isError": true}))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
