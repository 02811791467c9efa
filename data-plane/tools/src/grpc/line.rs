//! One call of gRPC over the client of the data plane, so that the rules of egress hold for it.
//!
//! Invariants: what the plugin gives is put on after everything else; a call goes to the plugin's address, whatever its
//! path; an answer has bounds, and is given up as soon as it has enough.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;

use super::{frame::Frames, status::Status};
use crate::{
    UpstreamError,
    egress::{CheckedUrl, EgressClient},
    trace_headers::TraceHeaders,
    upstream::{refuse_encoded, transport_error},
};

/// What a body of gRPC is; a suffix such as `+proto` may follow.
const KIND: &str = "application/grpc";
const TIMEOUT: &str = "grpc-timeout";
const ACCEPTED: &str = "grpc-accept-encoding";
/// The longest time that has a form, in milliseconds: eight digits.
const MAX_TIMEOUT_MS: u128 = 99_999_999;
/// What a service is given beside the time that is left. So it is our own time that ends a call: some services call it
/// cancelled when theirs ends, and nobody could tell that from a call that was.
const MARGIN_MS: u128 = 100;
/// When to come again to a busy service that does not say.
const RETRY_AFTER_MS: u64 = 1_000;

/// How much of an answer is taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Take {
    /// At most so many messages; one more is an error.
    All(usize),
    /// The first ones; the stream is ended then.
    First(usize),
}

/// What is asked.
pub(super) struct Asked<'a> {
    /// `/package.Service/Method`.
    pub(super) path: &'a str,
    /// The messages, as a body.
    pub(super) body: Bytes,
    /// The `authorization` header.
    pub(super) token: Option<&'a HeaderValue>,
    pub(super) deadline: Instant,
    pub(super) take: Take,
    /// Bytes of all messages of the answer.
    pub(super) max_bytes: usize,
    /// The trace that it belongs to.
    pub(super) trace: TraceHeaders,
}

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) messages: Vec<Bytes>,
    pub(super) status: Status,
    /// There may be more messages.
    pub(super) is_cut: bool,
}

/// The way to one address.
pub(crate) struct Line {
    client: EgressClient,
    server: CheckedUrl,
    /// What the plugin gives to each call.
    headers: HeaderMap,
}

impl Line {
    /// Connects to nothing yet. The client speaks HTTP/2.
    pub(crate) fn new(client: EgressClient, server: CheckedUrl, headers: HeaderMap) -> Self {
        Self { client, server, headers }
    }

    fn headers(&self, asked: &Asked<'_>) -> Result<HeaderMap, UpstreamError> {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(ACCEPTED, HeaderValue::from_static("identity"));
        let left = asked.deadline.saturating_duration_since(Instant::now()).as_millis();
        if left == 0 {
            return Err(UpstreamError::Deadline);
        }
        let timeout = format!("{}m", (left + MARGIN_MS).min(MAX_TIMEOUT_MS));
        headers.insert(TIMEOUT, HeaderValue::from_str(&timeout).map_err(|_| UpstreamError::Deadline)?);
        if let Some(token) = asked.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        asked.trace.add_to(&mut headers);
        Ok(headers)
    }

    /// Calls a method once. The caller waits no longer than the deadline: that is not kept here.
    pub(super) async fn ask(&self, asked: Asked<'_>) -> Result<Answer, UpstreamError> {
        let headers = self.headers(&asked)?;
        let url = self.server.with_path(asked.path);
        let response = self.client.exchange(&url, headers, asked.body).await.map_err(transport_error)?;
        let (parts, mut body) = response.into_parts();
        good(parts.status.as_u16(), &parts.headers)?;
        // An answer that is a status alone has it among its headers.
        let mut status = Status::read(&parts.headers);
        let (mut frames, mut messages, mut bytes) = (Frames::new(asked.max_bytes), Vec::new(), 0_usize);
        while let Some(frame) = body.frame().await {
            let lost = |cause: reqwest::Error| UpstreamError::Died(EgressClient::cause(cause));
            let data = match frame.map_err(lost)?.into_data() {
                Ok(data) => data,
                Err(other) => {
                    status = other.into_trailers().ok().and_then(|trailers| Status::read(&trailers)).or(status);
                    continue;
                }
            };
            frames.push(&data);
            while let Some(message) = frames.next()? {
                bytes = bytes.saturating_add(message.len());
                if bytes > asked.max_bytes {
                    return Err(UpstreamError::TooLarge(asked.max_bytes));
                }
                messages.push(message);
                match asked.take {
                    Take::All(count) if messages.len() > count => {
                        return Err(UpstreamError::Garbage("it answered with too many messages".to_owned()));
                    }
                    Take::First(count) if messages.len() >= count => {
                        return Ok(Answer { messages, status: Status::default(), is_cut: true });
                    }
                    _ => {}
                }
            }
        }
        // Without a status nobody knows how it ended.
        let status = status.ok_or_else(|| UpstreamError::Died("it ended without a status".to_owned()))?;
        if status.is_ok() && !frames.is_empty() {
            return Err(UpstreamError::Died("it ended within a message".to_owned()));
        }
        Ok(Answer { messages, status, is_cut: false })
    }
}

/// Whether an answer is one of gRPC: what stands between may answer in its place.
fn good(status: u16, headers: &HeaderMap) -> Result<(), UpstreamError> {
    match status {
        200 => {}
        401 | 403 => return Err(UpstreamError::Unauthorized(status)),
        429 => {
            let cause = "the service answered HTTP 429".to_owned();
            return Err(UpstreamError::Crowded { cause, retry_after_ms: RETRY_AFTER_MS });
        }
        _ => return Err(UpstreamError::Http { status, body: "this is no answer of gRPC".to_owned() }),
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with(KIND) {
        return Err(UpstreamError::Garbage("it does not speak gRPC at this address".to_owned()));
    }
    refuse_encoded(headers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_of_grpc_is_told_apart() {
        let of = |kind: &str| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())]);
        for (status, kind, expect) in [
            (200, "application/grpc", None),
            (200, "application/grpc+proto", None),
            (200, "Application/gRPC", None),
            (200, "text/html", Some("PV-UPSTREAM-GARBAGE")),
            (401, "text/html", Some("PV-UPSTREAM-UNAUTHORIZED")),
            (429, "application/grpc", Some("PV-UPSTREAM-BUSY")),
            (404, "text/html", Some("PV-UPSTREAM-HTTP")),
            (503, "text/html", Some("PV-UPSTREAM-HTTP")),
        ] {
            assert_eq!(good(status, &of(kind)).err().map(|e| e.code()), expect, "{status} {kind}");
        }
        assert_eq!(good(200, &HeaderMap::new()).err().map(|e| e.code()), Some("PV-UPSTREAM-GARBAGE"));
    }
}
