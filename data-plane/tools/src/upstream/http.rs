//! Streamable HTTP from the client's side.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use provost_mcp::{Envelope, EnvelopeFault, JsonLimits, SseParser};
use reqwest::{Method, RequestBuilder};

use super::answer::{Answer, line_error, whole_body};
use crate::{
    Limits, UpstreamError,
    egress::{CheckedUrl, EgressClient, Line},
    oauth::Authorizer,
    redact::Redactor,
};

/// The legacy session's header.
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The revision's header.
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// How much of an unexpected body is shown.
const SHOWN_BODY_CHARS: usize = 200;
/// How long the end of a stream is waited for after its answer, and how much may come until then.
const END_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_REST_BYTES: usize = 4 * 1024;
/// One endpoint with a connection pool of its own. Its URL may carry a secret: never shown.
#[derive(Clone)]
pub(crate) struct HttpTarget {
    /// Which of the plugin's endpoints it is.
    number: usize,
    client: EgressClient,
    url: CheckedUrl,
    /// Its own connections, where it is reached over plain HTTP.
    line: Option<Arc<Line>>,
    headers: Arc<HeaderMap>,
    /// Gives the `authorization` header where a request has none.
    auth: Option<Arc<Authorizer>>,
    redactor: Redactor,
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
    /// An endpoint that is called with these headers; connects to nothing yet. What `redactor` finds in answers
    /// goes no further.
    pub(crate) fn new(
        client: EgressClient,
        url: CheckedUrl,
        headers: HeaderMap,
        redactor: Redactor,
        limits: &Limits,
    ) -> Self {
        let max_bytes = limits.max_answer_bytes;
        let line = client.line(&url);
        Self { number: 0, client, url, line, headers: Arc::new(headers), auth: None, redactor, max_bytes }
    }

    /// The same with access tokens.
    pub(crate) fn with_auth(self, auth: Arc<Authorizer>) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// The same as another of the plugin's endpoints.
    pub(crate) fn at(&self, number: usize, url: CheckedUrl) -> Self {
        Self { number, line: self.client.line(&url), url, ..self.clone() }
    }

    /// Which of the plugin's endpoints it is.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn auth(&self) -> Option<&Arc<Authorizer>> {
        self.auth.as_ref()
    }

    /// The same on behalf of one caller, with their `authorization` header.
    pub(super) fn on_behalf(&self, authorization: &HeaderValue) -> Self {
        let mut headers = (*self.headers).clone();
        headers.insert(header::AUTHORIZATION, authorization.clone());
        Self { headers: Arc::new(headers), ..self.clone() }
    }

    /// The plugin's own access token, where the request is on nobody's behalf.
    async fn own_token(&self, extra: &HeaderMap) -> Result<Option<(&Authorizer, HeaderValue)>, UpstreamError> {
        let given = extra.contains_key(header::AUTHORIZATION) || self.headers.contains_key(header::AUTHORIZATION);
        match self.auth.as_deref().filter(|_| !given) {
            None => Ok(None),
            Some(auth) => Ok(auth.own_header().await?.map(|header| (auth, header))),
        }
    }

    /// Finds the plugin's secrets, and the access token of this request.
    fn redactor_for(&self, extra: &HeaderMap) -> Redactor {
        let header = extra.get(header::AUTHORIZATION).or_else(|| self.headers.get(header::AUTHORIZATION));
        let token = header.filter(|_| self.auth.is_some()).and_then(|h| h.to_str().ok()?.split_once(' '));
        token.map_or_else(|| self.redactor.clone(), |(_, token)| self.redactor.and(token))
    }

    /// A request with the plugin's headers and those of this request.
    fn request(&self, method: Method, extra: HeaderMap) -> RequestBuilder {
        self.client.request(method, &self.url).headers((*self.headers).clone()).headers(extra)
    }

    /// Sends one message. If the upstream refuses the plugin's own access token, which it does before it looks
    /// at the message, it is sent once more with another.
    pub(super) async fn post(&self, body: Bytes, mut extra: HeaderMap) -> Result<Posted, UpstreamError> {
        let Some((auth, token)) = self.own_token(&extra).await? else { return self.post_once(body, extra).await };
        extra.insert(header::AUTHORIZATION, token.clone());
        match self.post_once(body.clone(), extra.clone()).await {
            Err(UpstreamError::Unauthorized(401)) => {
                auth.refused(None, &token);
                if let Some(another) = auth.own_header().await? {
                    extra.insert(header::AUTHORIZATION, another);
                }
                self.post_once(body, extra).await
            }
            posted => posted,
        }
    }

    /// The head of the answer to one message, and its body as it comes.
    async fn ask(&self, body: Bytes, extra: HeaderMap) -> Result<(StatusCode, HeaderMap, Answer), UpstreamError> {
        let mut headers = extra;
        for (name, value) in &*self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(line) = &self.line {
            let (status, headers, body) = line.post(headers, body).await.map_err(line_error)?;
            return Ok((status, headers, Answer::Line(body)));
        }
        let request = self.client.request(Method::POST, &self.url).headers(headers).body(body);
        let mut response = request.send().await.map_err(transport_error)?;
        let headers = std::mem::take(response.headers_mut());
        Ok((response.status(), headers, Answer::Client(response)))
    }

    /// Sends one message. A status of the protocol's own errors (400, 404 with a JSON-RPC body)
    /// comes back as that message.
    async fn post_once(&self, body: Bytes, extra: HeaderMap) -> Result<Posted, UpstreamError> {
        let has_session = extra.contains_key(SESSION_ID);
        let redactor = self.redactor_for(&extra);
        let (status, headers, answer) = self.ask(body, extra).await?;
        refuse_encoded(&headers)?;
        match content_type(&headers) {
            Content::EventStream if status.is_success() => {
                Ok(Posted::Stream(Box::new(MessageStream::new(answer, redactor, self.max_bytes)), headers))
            }
            Content::Json => {
                let body = redactor.message(whole_body(answer, self.max_bytes).await?);
                // Servers name a type, too, where there is nothing: those on the official Python SDK up to version 1,
                // and its later ones in the legacy era, take a notification with 202, JSON, and no body.
                if body.is_empty() && is_taken(status) {
                    return Ok(Posted::Accepted);
                }
                match parse(body.clone(), self.max_bytes) {
                    Ok(message) if status.is_success() || is_answer(&message) => {
                        // A forgotten session is told by the status; servers add various bodies.
                        if status == StatusCode::NOT_FOUND && has_session {
                            return Err(UpstreamError::SessionGone);
                        }
                        Ok(Posted::Message(message, headers))
                    }
                    Err(fault) if status.is_success() => Err(fault),
                    _ => Err(status_error(status, has_session, &body, &redactor)),
                }
            }
            _ if is_taken(status) => {
                answer.let_go();
                Ok(Posted::Accepted)
            }
            Content::EventStream | Content::Other => {
                let body = whole_body(answer, SHOWN_BODY_CHARS * 8).await.unwrap_or_default();
                if status.is_success() {
                    return Err(UpstreamError::Garbage(format!(
                        "neither JSON nor an event stream, but: {}",
                        shown(&body, &redactor)
                    )));
                }
                Err(status_error(status, has_session, &body, &redactor))
            }
        }
    }

    /// Opens the legacy stream for what the server says on its own, or resumes one. `None`: the
    /// server has no such stream.
    pub(super) async fn stream(&self, mut extra: HeaderMap) -> Result<Option<MessageStream>, UpstreamError> {
        if let Some((_, token)) = self.own_token(&extra).await? {
            extra.insert(header::AUTHORIZATION, token);
        }
        let redactor = self.redactor_for(&extra);
        let request = self.request(Method::GET, extra).header(header::ACCEPT, "text/event-stream");
        let response = request.send().await.map_err(transport_error)?;
        let status = response.status();
        refuse_encoded(response.headers())?;
        match content_type(response.headers()) {
            Content::EventStream if status.is_success() => {
                Ok(Some(MessageStream::new(response.into(), redactor, self.max_bytes)))
            }
            _ if status == StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            _ => Err(status_error(status, true, &[], &redactor)),
        }
    }

    /// Ends a legacy session; a failure changes nothing.
    pub(super) async fn delete(&self, mut extra: HeaderMap) {
        if let Ok(Some((_, token))) = self.own_token(&extra).await {
            extra.insert(header::AUTHORIZATION, token);
        }
        if let Err(cause) = self.request(Method::DELETE, extra).send().await {
            tracing::debug!(cause = EgressClient::cause(cause), "an upstream session was not ended");
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

/// The statuses of a message that was taken and has no answer here.
fn is_taken(status: StatusCode) -> bool {
    status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT
}

fn is_answer(message: &Envelope) -> bool {
    matches!(message, Envelope::Response { .. })
}

pub(crate) fn transport_error(cause: reqwest::Error) -> UpstreamError {
    if let Some(refused) = EgressClient::refusal(&cause) {
        return UpstreamError::Egress(refused.to_string());
    }
    let connecting = cause.is_connect();
    let text = EgressClient::cause(cause);
    // Whatever was not even connected cannot have been executed.
    if connecting { UpstreamError::Unreachable(text) } else { UpstreamError::Died(text) }
}

/// We ask for no compression and undo none: a small answer cannot become a large one here.
pub(crate) fn refuse_encoded(headers: &HeaderMap) -> Result<(), UpstreamError> {
    let plain = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"identity") || v.is_empty();
    match headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        true => Ok(()),
        false => Err(UpstreamError::Garbage("it is compressed, which nobody asked for".to_owned())),
    }
}

fn status_error(status: StatusCode, has_session: bool, body: &[u8], redactor: &Redactor) -> UpstreamError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UpstreamError::Unauthorized(status.as_u16()),
        StatusCode::NOT_FOUND if has_session => UpstreamError::SessionGone,
        _ => UpstreamError::Http { status: status.as_u16(), body: shown(body, redactor) },
    }
}

/// The start of a body for an error text: one line, printable, without our credentials.
pub(crate) fn shown(body: &[u8], redactor: &Redactor) -> String {
    let text = String::from_utf8_lossy(body);
    let text = redactor.text(&text);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_BODY_CHARS).collect()
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
    answer: Answer,
    parser: SseParser,
    redactor: Redactor,
    max_bytes: usize,
}

impl MessageStream {
    fn new(answer: Answer, redactor: Redactor, max_bytes: usize) -> Self {
        Self { answer, parser: SseParser::new(max_bytes), redactor, max_bytes }
    }

    /// The next message; `None` at the end. Can be dropped and called again without loss.
    pub(super) async fn next(&mut self) -> Result<Option<Envelope>, UpstreamError> {
        loop {
            if let Some(event) = self.parser.next_event()? {
                return parse(self.redactor.message(event), self.max_bytes).map(Some);
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.parser.feed(&chunk)?,
                None => return Ok(None),
            }
        }
    }

    /// Reads what is left of a stream whose answer came, so that its connection serves the next call: one that is
    /// let go in the middle of a response is closed. Mostly the end is there already; else it is waited for aside,
    /// for a moment.
    pub(super) fn finish(mut self: Box<Self>) {
        if matches!(self.answer.chunk().now_or_never(), Some(Ok(None) | Err(_))) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(END_TIMEOUT, async move {
                let mut length = 0;
                while let Ok(Some(chunk)) = self.answer.chunk().await {
                    length += chunk.len();
                    if length > MAX_REST_BYTES {
                        return;
                    }
                }
            }));
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::egress::EgressRule;

    #[tokio::test]
    async fn messages_that_are_taken_go_over_one_connection() {
        for head in
            ["202 Accepted\r\ncontent-length: 0\r\n\r\n", "202 A\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let served = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..2 {
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"{}") {
                        assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0, "it was closed");
                    }
                    stream.write_all(format!("HTTP/1.1 {head}").as_bytes()).await.unwrap();
                }
            });
            let client = EgressClient::new(EgressRule::public()).unwrap();
            let url = client.check(&format!("http://{address}/mcp")).unwrap();
            let target = HttpTarget::new(client, url, HeaderMap::new(), Redactor::default(), &Limits::default());
            for _ in 0..2 {
                let posted = target.post(Bytes::from_static(b"{}"), HeaderMap::new()).await;
                assert!(matches!(posted, Ok(Posted::Accepted)), "{head}");
            }
            served.await.unwrap();
        }
    }
}
