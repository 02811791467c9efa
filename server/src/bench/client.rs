//! One connection that makes one call after another, at as little cost as checking the answer allows.
//!
//! The request is written once: headers are shared and the body is a prefix, the id and a suffix. The
//! connection is driven by the task that waits for the answer, so a call wakes no other task.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::net::TcpStream;

use super::Era;
use crate::failure::Failure;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// A larger answer is an error of its own kind.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The id of the probe and of `initialize`; calls of the load count from 1.
const PROBE_ID: u64 = 0;
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// What every call of a run has in common.
#[derive(Clone, Debug)]
pub struct Target {
    authority: String,
    uri: Uri,
    headers: HeaderMap,
    era: Era,
    /// The body up to the id, and after it.
    body: (Bytes, Bytes),
    expect: Option<String>,
    timeout: Duration,
}

/// Why a call counts as failed: few kinds, so that they can be counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallError {
    /// No connection.
    Connect(String),
    /// The connection broke, or the answer was not HTTP.
    Broken(String),
    /// No answer in time.
    Timeout,
    /// An HTTP status other than 200.
    Status(u16, String),
    /// A JSON-RPC error: its code and ours if it carries one.
    Rpc(String),
    /// The tool says that it failed.
    Tool,
    /// The answer is not the result that was asked for.
    Wrong(&'static str),
}

impl CallError {
    /// The kind, for counting.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect(_) => "connect".into(),
            Self::Broken(_) => "broken connection".into(),
            Self::Timeout => "timeout".into(),
            Self::Status(status, _) => format!("HTTP {status}"),
            Self::Rpc(code) => format!("JSON-RPC {code}"),
            Self::Tool => "tool error".into(),
            Self::Wrong(what) => format!("wrong answer: {what}"),
        }
    }

    /// Whether the connection can serve another call.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Broken(_) | Self::Timeout)
    }
}

impl Target {
    /// A call of `tool` at `url`.
    pub fn new(url: &str, token: Option<&str>, era: Era, tool: &str, arguments: &Value) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().map_err(|cause| bad_url(url, &format!("{cause}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad_url(url, "only plain http is measured, TLS would hide the rest").into());
        }
        let host = uri.host().ok_or_else(|| bad_url(url, "it names no host"))?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let headers = headers(&uri, token, era, tool)?;
        let body = body(era, tool, arguments)?;
        Ok(Self { authority, uri, headers, era, body, expect: None, timeout: Duration::from_secs(10) })
    }

    /// Every answer must contain `text`.
    pub fn expecting(self, text: Option<String>) -> Self {
        Self { expect: text, ..self }
    }

    /// A call may take this long.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Makes one call, to turn what every call would run into into one clear error.
    pub async fn probe(&self) -> anyhow::Result<()> {
        let outcome = match Connection::open(self).await {
            Ok(mut connection) => connection.call(self, PROBE_ID).await,
            Err(error) => Err(error),
        };
        let Err(error) = outcome else { return Ok(()) };
        let detail = match &error {
            CallError::Connect(cause) | CallError::Broken(cause) | CallError::Status(_, cause) => format!(": {cause}"),
            _ => String::new(),
        };
        Err(Failure::new(
            "PV-BENCH-PROBE",
            format!("the first call failed ({}{detail})", error.kind()),
            "try the same with `provost call`, then check --url, --token, --tool and --arg",
        )
        .into())
    }
}

fn bad_url(url: &str, cause: &str) -> Failure {
    Failure::new("PV-BENCH-URL", format!("`{url}` cannot be used: {cause}"), "write http://HOST:PORT/mcp")
}

fn headers(uri: &Uri, token: Option<&str>, era: Era, tool: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    headers.insert(header::HOST, HeaderValue::from_str(host)?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .context("PV-BENCH-TOKEN: the token holds characters that no header may carry")?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let version = if era == Era::Modern { MODERN } else { LEGACY };
    headers.insert("mcp-protocol-version", HeaderValue::from_static(version));
    if era == Era::Modern {
        headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
        let name = HeaderValue::from_str(tool).context("PV-BENCH-TOOL: the tool's name fits no header")?;
        headers.insert("mcp-name", name);
    }
    Ok(headers)
}

fn body(era: Era, tool: &str, arguments: &Value) -> serde_json::Result<(Bytes, Bytes)> {
    let mut params = json!({ "name": tool, "arguments": arguments });
    if era == Era::Modern {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": client_info(),
            "io.modelcontextprotocol/clientCapabilities": {},
        });
    }
    let suffix = format!(r#","method":"tools/call","params":{}}}"#, serde_json::to_string(&params)?);
    Ok((Bytes::from_static(br#"{"jsonrpc":"2.0","id":"#), Bytes::from(suffix)))
}

fn client_info() -> Value {
    json!({ "name": "provost-bench", "version": env!("CARGO_PKG_VERSION") })
}

/// One TCP connection, with its session where the era has them.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
    session: Option<HeaderValue>,
}

impl Connection {
    /// Connects, and initialises a session in the legacy era.
    pub async fn open(target: &Target) -> Result<Self, CallError> {
        let connecting = async {
            let stream = TcpStream::connect(&target.authority).await.map_err(|e| CallError::Connect(e.to_string()))?;
            stream.set_nodelay(true).map_err(|e| CallError::Connect(e.to_string()))?;
            let (sender, driver) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|e| CallError::Connect(e.to_string()))?;
            let mut connection = Self { sender, driver, session: None };
            if target.era == Era::Legacy {
                connection.initialize(target).await?;
            }
            Ok(connection)
        };
        tokio::time::timeout(target.timeout, connecting).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Makes one call and checks its answer.
    pub async fn call(&mut self, target: &Target, id: u64) -> Result<(), CallError> {
        let (prefix, suffix) = &target.body;
        let number = id.to_string();
        let mut body = Vec::with_capacity(prefix.len() + number.len() + suffix.len());
        body.extend_from_slice(prefix);
        body.extend_from_slice(number.as_bytes());
        body.extend_from_slice(suffix);
        let exchange = self.exchange(target, body.into());
        let (head, answer) = tokio::time::timeout(target.timeout, exchange).await.unwrap_or(Err(CallError::Timeout))?;
        check(head.status, &head.headers, &answer, id, target.expect.as_deref())
    }

    async fn initialize(&mut self, target: &Target) -> Result<(), CallError> {
        let hello = json!({ "jsonrpc": "2.0", "id": PROBE_ID, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client_info() } });
        let (head, answer) = self.exchange(target, hello.to_string().into()).await?;
        check(head.status, &head.headers, &answer, PROBE_ID, None)?;
        self.session = head.headers.get(SESSION).cloned();
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let (head, answer) = self.exchange(target, ready.to_string().into()).await?;
        if head.status.is_success() { Ok(()) } else { Err(refused(head.status, &answer)) }
    }

    /// One request and its whole answer, while driving the connection.
    async fn exchange(&mut self, target: &Target, body: Bytes) -> Result<(http::response::Parts, Bytes), CallError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.uri.path_and_query().map_or_else(Uri::default, |p| Uri::from(p.clone()));
        *request.headers_mut() = target.headers.clone();
        if let Some(session) = &self.session {
            request.headers_mut().insert(SESSION, session.clone());
        }
        let Self { sender, driver, .. } = self;
        let answer = async {
            sender.ready().await.map_err(|e| CallError::Broken(e.to_string()))?;
            let response = sender.send_request(request).await.map_err(|e| CallError::Broken(e.to_string()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES);
            let body = body.collect().await.map_err(|e| CallError::Broken(e.to_string()))?;
            Ok((head, body.to_bytes()))
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            ended = driver => Err(CallError::Broken(ended.err().map_or_else(|| "closed".into(), |e| e.to_string()))),
        }
    }
}

/// The parts of a JSON-RPC answer that are looked at.
#[derive(Deserialize)]
struct Answer<'a> {
    id: Option<u64>,
    method: Option<&'a str>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallResult {
    is_error: Option<bool>,
    result_type: Option<String>,
}

fn check(status: StatusCode, headers: &HeaderMap, body: &[u8], id: u64, expect: Option<&str>) -> Result<(), CallError> {
    if status != StatusCode::OK {
        return Err(refused(status, body));
    }
    let is_stream = headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
    let message = if is_stream { last_message(body)? } else { body };
    let answer: Answer<'_> = serde_json::from_slice(message).map_err(|_| CallError::Wrong("not JSON-RPC"))?;
    if let Some(error) = answer.error {
        return Err(rpc_error(&error));
    }
    if answer.method.is_some() || answer.id != Some(id) {
        return Err(CallError::Wrong("another id"));
    }
    let result = answer.result.ok_or(CallError::Wrong("neither result nor error"))?;
    let result_head: CallResult =
        serde_json::from_str(result.get()).map_err(|_| CallError::Wrong("the result is no object"))?;
    if result_head.is_error == Some(true) {
        return Err(CallError::Tool);
    }
    if result_head.result_type.is_some_and(|t| t != "complete") {
        return Err(CallError::Wrong("the result is not complete"));
    }
    match expect {
        Some(text) if !result.get().contains(text) => Err(CallError::Wrong("the expected text is absent")),
        _ => Ok(()),
    }
}

/// The last message of a request's stream: what comes before are notifications.
fn last_message(stream: &[u8]) -> Result<&[u8], CallError> {
    stream
        .split(|b| *b == b'\n')
        .rev()
        .find_map(|line| line.strip_prefix(b"data:").map(<[u8]>::trim_ascii).filter(|data| !data.is_empty()))
        .ok_or(CallError::Wrong("an empty stream"))
}

fn rpc_error(error: &RpcError) -> CallError {
    let ours = error.data["code"].as_str().map_or_else(String::new, |code| format!(" {code}"));
    CallError::Rpc(format!("{}{ours}", error.code))
}

/// An HTTP refusal; the JSON-RPC error in its body says more than the status.
fn refused(status: StatusCode, body: &[u8]) -> CallError {
    match serde_json::from_slice::<Answer<'_>>(body) {
        Ok(Answer { error: Some(error), .. }) => rpc_error(&error),
        _ => CallError::Status(status.as_u16(), String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(content_type: &'static str, status: u16, body: &str, expect: Option<&str>) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let status = StatusCode::from_u16(status).unwrap();
        check(status, &headers, body.as_bytes(), 7, expect).map_err(|e| e.kind())
    }

    #[test]
    fn only_a_complete_result_of_this_call_is_good() {
        let json = "application/json";
        let good = r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","content":[{"text":"hi"}]}}"#;
        assert_eq!(checked(json, 200, good, Some("hi")), Ok(()));
        let bad = [
            (good, Some("ho"), "wrong answer: the expected text is absent"),
            (r#"{"id":8,"result":{}}"#, None, "wrong answer: another id"),
            (r#"{"id":7}"#, None, "wrong answer: neither result nor error"),
            (r#"{"id":7,"result":{"isError":true}}"#, None, "tool error"),
            (r#"{"id":7,"result":{"resultType":"input_required"}}"#, None, "wrong answer: the result is not complete"),
            (r#"{"id":7,"error":{"code":-32602,"message":""}}"#, None, "JSON-RPC -32602"),
            ("<html>", None, "wrong answer: not JSON-RPC"),
        ];
        for (body, expect, kind) in bad {
            assert_eq!(checked(json, 200, body, expect), Err(kind.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_named_by_the_most_exact_code() {
        let denied = r#"{"id":7,"error":{"code":-32001,"message":"","data":{"code":"PV-POLICY-DENIED"}}}"#;
        assert_eq!(checked("application/json", 403, denied, None), Err("JSON-RPC -32001 PV-POLICY-DENIED".into()));
        assert_eq!(checked("text/plain", 502, "bad gateway", None), Err("HTTP 502".into()));
    }

    #[test]
    fn the_answer_of_a_stream_is_its_last_message() {
        let stream = "event: message\r\ndata: {\"method\":\"notifications/progress\"}\r\n\r\n\
                      data: {\"id\":7,\"result\":{}}\r\n\r\n";
        assert_eq!(checked("text/event-stream", 200, stream, None), Ok(()));
        assert_eq!(checked("text/event-stream", 200, ": ping\n\n", None), Err("wrong answer: an empty stream".into()));
    }

    #[test]
    fn the_body_is_one_valid_call() {
        let target = Target::new("http://h:1/mcp", None, Era::Modern, "echo", &json!({"a": 1})).unwrap();
        let text = [&target.body.0[..], b"9", &target.body.1[..]].concat();
        let call: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(call["id"], 9);
        assert_eq!(call["params"]["arguments"], json!({"a": 1}));
        assert_eq!(call["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN);
        assert!(Target::new("https://h/mcp", None, Era::Modern, "echo", &json!({})).is_err());
    }
}
