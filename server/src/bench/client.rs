//! One connection, or a stream of a shared one, that makes one call after another, at as little cost as checking the answer allows.
//!
//! The request is written once: headers are shared and the body is a prefix, the id and a suffix. How it
//! travels is the lane's business (`provost-client`).

use std::{net::IpAddr, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use provost_client::{Connector, Lane, LinkError};
use provost_mcp::{RawJson, RequestId};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::Era;
use crate::failure::Failure;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// The id of the probe and of `initialize`; calls of the load count from 1.
const PROBE_ID: u64 = 0;

/// What every call of a run has in common.
#[derive(Clone, Debug)]
pub struct Target {
    connector: Connector,
    headers: HeaderMap,
    era: Era,
    /// The body up to the id, and after it.
    body: (Bytes, Bytes),
    expect: Option<String>,
    timeout: Duration,
    /// All calls of a run over one connection.
    shares: bool,
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

    /// What happened, for a person.
    pub fn detail(&self) -> String {
        match self {
            Self::Connect(cause) | Self::Broken(cause) | Self::Status(_, cause) => cause.clone(),
            other => other.kind(),
        }
    }

    /// What an error of the connection means to a run.
    fn of(error: LinkError, is_opening: bool) -> Self {
        match error {
            LinkError::Deadline(_) => Self::Timeout,
            LinkError::Refused { status, text } => Self::Status(status, text),
            LinkError::Rejected(error) => {
                let data = error.data.and_then(|data| data.parse().ok()).unwrap_or_default();
                rpc_error(&RpcError { code: error.code, data })
            }
            other if is_opening => Self::Connect(other.to_string()),
            other => Self::Broken(other.to_string()),
        }
    }

    /// Whether a server answered, and refused what was asked for: another name, or other arguments, may do.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Tool => true,
            Self::Rpc(code) => code.starts_with("-32602"),
            _ => false,
        }
    }

    /// Whether a node of Provost says that there is no such tool.
    pub fn is_unknown_tool(&self) -> bool {
        matches!(self, Self::Rpc(code) if code.ends_with("PV-TOOL-UNKNOWN"))
    }

    /// What a person reads when the call before a load failed.
    pub fn of_the_first_call(&self) -> anyhow::Error {
        let detail = match self {
            Self::Connect(cause) | Self::Broken(cause) | Self::Status(_, cause) => format!(": {cause}"),
            _ => String::new(),
        };
        Failure::new(
            "PV-BENCH-PROBE",
            format!("the first call failed ({}{detail})", self.kind()),
            "try the same with `provost call`, then check --url, --token, --tool and --arg",
        )
        .into()
    }

    /// Whether the connection can serve no other call.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Broken(_) | Self::Timeout)
    }
}

impl Target {
    /// A call of `tool` over what `connector` opens.
    pub fn new(connector: Connector, era: Era, tool: &str, arguments: &Value) -> anyhow::Result<Self> {
        let headers = headers(era, tool)?;
        let body = body(era, tool, arguments)?;
        Ok(Self { connector, headers, era, body, expect: None, timeout: Duration::from_secs(10), shares: false })
    }

    /// The same from another address of this machine.
    pub fn bound_to(&self, source: IpAddr) -> Self {
        Self { connector: self.connector.bound_to(source), ..self.clone() }
    }

    /// Every answer must contain `text`.
    pub fn expecting(self, text: Option<String>) -> Self {
        Self { expect: text, ..self }
    }

    /// All calls of a run over one connection, each on a stream of its own: over HTTP/2 without TLS, or over QUIC. Of the
    /// modern era: there are no sessions.
    pub fn over_one_connection(self) -> Self {
        Self { shares: true, ..self }
    }

    /// A call may take this long.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Makes one call, to turn what every call would run into into one clear error.
    pub async fn probe(&self) -> anyhow::Result<()> {
        self.first_call().await.map_err(|error| error.of_the_first_call())
    }

    /// Makes one call.
    pub async fn first_call(&self) -> Result<(), CallError> {
        Connection::open(self).await?.call(self, PROBE_ID).await
    }
}

fn headers(era: Era, tool: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let version = if era == Era::Modern { MODERN } else { LEGACY };
    headers.insert("mcp-protocol-version", HeaderValue::from_static(version));
    if era == Era::Modern {
        headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
        let name = HeaderValue::try_from(provost_mcp::headers::encode_value(tool))
            .context("PV-BENCH-TOOL: the tool's name fits no header")?;
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

/// One connection, with its session where the era has them; or a part of the one that all calls of a run share.
pub struct Connection(Lane);

impl Connection {
    /// Connects, and initialises a session in the legacy era.
    pub async fn open(target: &Target) -> Result<Self, CallError> {
        let connecting = async {
            let lane = match target.shares {
                true => Lane::open_shared(&target.connector).await,
                false => Lane::open(&target.connector).await,
            };
            let mut connection = Self(lane.map_err(|e| CallError::of(e, true))?);
            if target.era == Era::Legacy {
                connection.initialize(target).await?;
            }
            Ok(connection)
        };
        tokio::time::timeout(target.timeout, connecting).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Another part of the same connection; `None`: calls of this run have connections of their own.
    pub fn beside(&self, target: &Target) -> Option<Self> {
        self.0.beside().filter(|_| target.shares).map(Self)
    }

    /// Makes one call and checks its answer.
    pub async fn call(&mut self, target: &Target, id: u64) -> Result<(), CallError> {
        let (prefix, suffix) = &target.body;
        let number = id.to_string();
        let mut body = Vec::with_capacity(prefix.len() + number.len() + suffix.len());
        body.extend_from_slice(prefix);
        body.extend_from_slice(number.as_bytes());
        body.extend_from_slice(suffix);
        let asked = request_id(id);
        let exchange = self.0.call(&target.headers, body.into(), &asked);
        let answer = tokio::time::timeout(target.timeout, exchange).await;
        let answer = answer.unwrap_or(Err(LinkError::Deadline(target.timeout)));
        check(&answer.map_err(|e| CallError::of(e, false))?, id, target.expect.as_deref())
    }

    /// Whether another call may be made on it.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Holds the connection without calls, until the server ends it.
    pub async fn idle(&mut self) -> CallError {
        CallError::of(self.0.idle().await, false)
    }

    async fn initialize(&mut self, target: &Target) -> Result<(), CallError> {
        let hello = json!({ "jsonrpc": "2.0", "id": PROBE_ID, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client_info() } });
        let broken = |error| CallError::of(error, false);
        let body = hello.to_string().into();
        let answer = self.0.call(&target.headers, body, &request_id(PROBE_ID)).await.map_err(broken)?;
        check(&answer, PROBE_ID, None)?;
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        self.0.notify(&target.headers, ready.to_string().into()).await.map_err(broken)
    }
}

fn request_id(number: u64) -> RequestId {
    RequestId(RawJson::from(Value::from(number)))
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

fn check(message: &[u8], id: u64, expect: Option<&str>) -> Result<(), CallError> {
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

fn rpc_error(error: &RpcError) -> CallError {
    let ours = error.data["code"].as_str().map_or_else(String::new, |code| format!(" {code}"));
    CallError::Rpc(format!("{}{ours}", error.code))
}

#[cfg(test)]
mod tests;
