//! Streamable HTTP from the client's side.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use provost_mcp::{Envelope, EnvelopeFault, JsonLimits, SseParser};
use reqwest::{Client, Method, Response};
use url::Url;

use crate::{
    Limits, UpstreamError,
    egress::{CheckedResolver, check_url},
};

/// The legacy session's header.
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The revision's header.
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// How much of an unexpected body is shown.
const SHOWN_BODY_CHARS: usize = 200;
/// Longest time for a TCP and TLS handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections kept to one upstream.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// One endpoint with a connection pool of its own.
#[derive(Clone)]
pub(crate) struct HttpTarget {
    client: Client,
    url: Url,
    headers: Arc<HeaderMap>,
    max_bytes: usize,
}

/// What a POST brought.
pub(super) enum Posted {
    /// 202: taken.
    Accepted,
    /// One message.
    Message(Envelope, HeaderMap),
    /// A stream of messages.
    Stream(Box<MessageStream>, HeaderMap),
}

impl HttpTarget {
    /// Checks the address and headers; connects to nothing yet.
    pub(crate) fn new(url: &str, headers: HeaderMap, limits: &Limits) -> Result<Self, UpstreamError> {
        let url = check_url(url)?;
        // Whoever installed a provider first wins; all of ours is aws-lc-rs.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(CheckedResolver)
            .connect_timeout(DIAL_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .build()
            .map_err(|cause| UpstreamError::Config(cause.to_string()))?;
        Ok(Self { client, url, headers: Arc::new(headers), max_bytes: limits.max_answer_bytes })
    }

    /// Sends one message. A status of the protocol's own errors (400, 404 with a JSON-RPC body)
    /// comes back as that message.
    pub(super) async fn post(&self, body: Bytes, extra: HeaderMap) -> Result<Posted, UpstreamError> {
        let has_session = extra.contains_key(SESSION_ID);
        let request = self
            .client
            .request(Method::POST, self.url.clone())
            .headers((*self.headers).clone())
            .headers(extra)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .body(body);
        let response = request.send().await.map_err(transport_error)?;
        let (status, headers) = (response.status(), response.headers().clone());
        match content_type(&headers) {
            Content::EventStream if status.is_success() => {
                Ok(Posted::Stream(Box::new(MessageStream::new(response, self.max_bytes)), headers))
            }
            Content::Json => {
                let body = whole_body(response, self.max_bytes).await?;
                match parse(body.clone(), self.max_bytes) {
                    Ok(message) if status.is_success() || is_answer(&message) => {
                        // A forgotten session is told by the status; servers add various bodies.
                        if status == StatusCode::NOT_FOUND && has_session {
                            return Err(UpstreamError::SessionGone);
                        }
                        Ok(Posted::Message(message, headers))
                    }
                    Err(fault) if status.is_success() => Err(fault),
                    _ => Err(status_error(status, has_session, &body)),
                }
            }
            _ if status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT => Ok(Posted::Accepted),
            Content::EventStream | Content::Other => {
                let body = whole_body(response, SHOWN_BODY_CHARS * 8).await.unwrap_or_default();
                if status.is_success() {
                    return Err(UpstreamError::Garbage(format!(
                        "neither JSON nor an event stream, but: {}",
                        shown(&body)
                    )));
                }
                Err(status_error(status, has_session, &body))
            }
        }
    }

    /// Opens the legacy stream for what the server says on its own, or resumes one. `None`: the
    /// server has no such stream.
    pub(super) async fn stream(&self, extra: HeaderMap) -> Result<Option<MessageStream>, UpstreamError> {
        let response = self
            .client
            .request(Method::GET, self.url.clone())
            .headers((*self.headers).clone())
            .headers(extra)
            .header(header::ACCEPT, "text/event-stream")
            .send()
            .await
            .map_err(transport_error)?;
        let status = response.status();
        match content_type(response.headers()) {
            Content::EventStream if status.is_success() => Ok(Some(MessageStream::new(response, self.max_bytes))),
            _ if status == StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            _ => Err(status_error(status, true, &[])),
        }
    }

    /// Ends a legacy session; a failure changes nothing.
    pub(super) async fn delete(&self, extra: HeaderMap) {
        let request =
            self.client.request(Method::DELETE, self.url.clone()).headers((*self.headers).clone()).headers(extra);
        if let Err(cause) = request.send().await {
            tracing::debug!(%cause, "an upstream session was not ended");
        }
    }
}

enum Content {
    Json,
    EventStream,
    Other,
}

fn content_type(headers: &HeaderMap) -> Content {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Content::Json
    } else if essence.eq_ignore_ascii_case("text/event-stream") {
        Content::EventStream
    } else {
        Content::Other
    }
}

fn is_answer(message: &Envelope) -> bool {
    matches!(message, Envelope::Response { .. })
}

fn transport_error(cause: reqwest::Error) -> UpstreamError {
    let mut text = cause.to_string();
    let mut source = std::error::Error::source(&cause);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    // Whatever was not even connected cannot have been executed.
    if cause.is_connect() { UpstreamError::Unreachable(text) } else { UpstreamError::Died(text) }
}

fn status_error(status: StatusCode, has_session: bool, body: &[u8]) -> UpstreamError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UpstreamError::Unauthorized(status.as_u16()),
        StatusCode::NOT_FOUND if has_session => UpstreamError::SessionGone,
        _ => UpstreamError::Http { status: status.as_u16(), body: shown(body) },
    }
}

/// The start of a body for an error text: one line, printable.
fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_BODY_CHARS).collect()
}

async fn whole_body(mut response: Response, max_bytes: usize) -> Result<Bytes, UpstreamError> {
    if response.content_length().is_some_and(|n| n > max_bytes as u64) {
        return Err(UpstreamError::TooLarge(max_bytes));
    }
    let died = |cause: reqwest::Error| UpstreamError::Died(cause.to_string());
    let Some(first) = response.chunk().await.map_err(died)? else { return Ok(Bytes::new()) };
    let mut whole: Option<BytesMut> = None;
    let mut length = first.len();
    while let Some(chunk) = response.chunk().await.map_err(died)? {
        length += chunk.len();
        if length > max_bytes {
            return Err(UpstreamError::TooLarge(max_bytes));
        }
        whole.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&chunk);
    }
    // Most answers come in one piece and are not copied.
    Ok(whole.map_or(first, BytesMut::freeze))
}

/// Reads one message of an upstream.
pub(super) fn parse(bytes: Bytes, max_bytes: usize) -> Result<Envelope, UpstreamError> {
    let limits = JsonLimits { max_bytes, ..JsonLimits::RESPONSE };
    Envelope::parse(bytes, &limits).map_err(|fault| match fault {
        EnvelopeFault::Json(fault) => fault.into(),
        other => UpstreamError::Garbage(other.to_string()),
    })
}

/// Messages of an event stream. Dropping it closes the stream.
pub(super) struct MessageStream {
    response: Response,
    parser: SseParser,
    max_bytes: usize,
}

impl MessageStream {
    fn new(response: Response, max_bytes: usize) -> Self {
        Self { response, parser: SseParser::new(max_bytes), max_bytes }
    }

    /// The next message; `None` at the end. Can be dropped and called again without loss.
    pub(super) async fn next(&mut self) -> Result<Option<Envelope>, UpstreamError> {
        loop {
            if let Some(event) = self.parser.next_event()? {
                return parse(event, self.max_bytes).map(Some);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.parser.feed(&chunk)?,
                Ok(None) => return Ok(None),
                Err(cause) => return Err(UpstreamError::Died(cause.to_string())),
            }
        }
    }

    /// From where the stream can be resumed: the last event's id and the pause asked for.
    pub(super) fn resume_point(&self) -> Option<(String, Duration)> {
        /// The pause if the server names none.
        const DEFAULT_RETRY_MS: u64 = 1_000;
        /// The longest pause that is honoured.
        const MAX_RETRY_MS: u64 = 10_000;
        let id = self.parser.last_id()?.to_owned();
        let ms = self.parser.retry_ms().unwrap_or(DEFAULT_RETRY_MS).min(MAX_RETRY_MS);
        Some((id, Duration::from_millis(ms)))
    }
}

/// A header value, if the text can be one.
pub(super) fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}
