//! Discovery and `initialize`: from a wire to a connection, and which era it speaks.
//!
//! Order for `auto` (specification 2026-07-28, basic/lifecycle, "Backward compatibility"): ask
//! `server/discover`; whatever a server of the legacy era makes of it (an error, a status, its
//! end), try `initialize`. What worked is remembered by `mcp`.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use provost_mcp::{Envelope, Era, ProtocolVersion, RawJson, RawObject, RequestId, RpcError};
use serde_json::json;

use super::{
    connection::{Connection, ServerFacts, Wire},
    headers::standard_headers,
    http::{HttpTarget, PROTOCOL_VERSION, Posted, SESSION_ID, header_value},
    outgoing::modern_meta,
    stdio::{StdioProcess, StdioTarget},
};
use crate::UpstreamError;

/// How we introduce ourselves.
pub(super) fn client_info() -> RawJson {
    RawJson::from(json!({"name": "provost", "version": env!("CARGO_PKG_VERSION")}))
}

/// Over HTTP: discovery.
pub(super) async fn discover_http(target: &HttpTarget) -> Result<Arc<Connection>, UpstreamError> {
    let params = discover_params();
    let mut headers = standard_headers("server/discover", None);
    insert(&mut headers, PROTOCOL_VERSION, ProtocolVersion::LATEST.as_str());
    let (result, _) = post(target, handshake_id(1), "server/discover", &params, headers).await?;
    let facts = discovered(&result)?;
    Ok(Connection::new(facts, Wire::Http { target: Box::new(target.clone()), session: None, is_shared: false }))
}

/// Over HTTP: `initialize` and `notifications/initialized`. `is_shared`: other nodes may use the session.
pub(super) async fn initialize_http(
    target: &HttpTarget,
    capabilities: &RawJson,
    is_shared: bool,
) -> Result<Arc<Connection>, UpstreamError> {
    let params = initialize_params(capabilities);
    let (result, headers) = post(target, handshake_id(2), "initialize", &params, HeaderMap::new()).await?;
    let facts = initialized(&result)?;
    let session = headers.get(&SESSION_ID).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let connection = Connection::new(facts, Wire::Http { target: Box::new(target.clone()), session, is_shared });
    connection.tell("notifications/initialized", None).await?;
    Ok(connection)
}

/// Over stdio: discovery on a fresh process.
pub(super) async fn discover_stdio(target: &StdioTarget) -> Result<Arc<Connection>, UpstreamError> {
    let process = StdioProcess::spawn(target)?;
    let result = over_stdio(&process, 1, "server/discover", &discover_params()).await?;
    Ok(Connection::new(discovered(&result)?, Wire::Stdio(process)))
}

/// Over stdio: `initialize` on a fresh process.
pub(super) async fn initialize_stdio(
    target: &StdioTarget,
    capabilities: &RawJson,
) -> Result<Arc<Connection>, UpstreamError> {
    let process = StdioProcess::spawn(target)?;
    let result = over_stdio(&process, 2, "initialize", &initialize_params(capabilities)).await?;
    let connection = Connection::new(initialized(&result)?, Wire::Stdio(process));
    connection.tell("notifications/initialized", None).await?;
    Ok(connection)
}

/// A server that is silent on `server/discover` is taken for legacy after this time.
pub(super) const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);

fn handshake_id(number: i64) -> RequestId {
    RequestId(RawJson::from(serde_json::Value::from(number)))
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Some(value) = header_value(value) {
        headers.insert(name, value);
    }
}

fn discover_params() -> RawJson {
    let mut params = RawObject::new();
    params.set("_meta", modern_meta(RawObject::new(), &full_capabilities(), None).finish());
    params.finish()
}

fn initialize_params(capabilities: &RawJson) -> RawJson {
    let mut params = RawObject::new();
    params.set_text("protocolVersion", ProtocolVersion::LATEST_LEGACY.as_str());
    params.set("capabilities", capabilities.clone());
    params.set("clientInfo", client_info());
    params.finish()
}

/// Everything a client can declare: used where the catalogue is read, since servers hide tools
/// from clients that cannot serve them.
pub(super) fn full_capabilities() -> RawJson {
    RawJson::from(json!({
        "elicitation": {"form": {}, "url": {}},
        "sampling": {"tools": {}, "context": {}},
        "roots": {"listChanged": true},
        "extensions": {"io.modelcontextprotocol/tasks": {}}
    }))
}

/// One request whose connection does not exist yet.
async fn post(
    target: &HttpTarget,
    id: RequestId,
    method: &str,
    params: &RawJson,
    headers: HeaderMap,
) -> Result<(RawJson, HeaderMap), UpstreamError> {
    let body = provost_mcp::request_message(&id, method, Some(params));
    match target.post(body, headers).await? {
        Posted::Message(message, headers) => Ok((outcome(&id, message)?, headers)),
        Posted::Stream(mut stream, headers) => loop {
            match stream.next().await? {
                Some(message @ Envelope::Response { .. }) => {
                    return Ok((outcome(&id, message)?, headers));
                }
                Some(_) => {}
                None => {
                    return Err(UpstreamError::Died("no answer to the handshake".to_owned()));
                }
            }
        },
        Posted::Accepted => Err(UpstreamError::Garbage(format!("it takes {method} for a notification"))),
    }
}

fn outcome(id: &RequestId, message: Envelope) -> Result<RawJson, UpstreamError> {
    match message {
        Envelope::Response { id: answered, outcome } => match outcome {
            Ok(result) if answered.as_ref() == Some(id) => Ok(result),
            Ok(_) => Err(UpstreamError::Garbage("the handshake's answer has another id".to_owned())),
            Err(error) => Err(UpstreamError::Rpc(error)),
        },
        _ => Err(UpstreamError::Garbage("the handshake was not answered".to_owned())),
    }
}

async fn over_stdio(
    process: &Arc<StdioProcess>,
    number: i64,
    method: &str,
    params: &RawJson,
) -> Result<RawJson, UpstreamError> {
    let id = handshake_id(number);
    let line = process.switchboard().register(&id)?;
    process.send(provost_mcp::request_message(&id, method, Some(params))).await?;
    let answer = line.answer.await;
    process.switchboard().forget(&id);
    match answer {
        Ok(outcome) => outcome.map_err(UpstreamError::Rpc),
        Err(_) => Err(match process.switchboard().closed() {
            Some(UpstreamError::Died(cause)) => UpstreamError::NotRunning(cause),
            Some(other) => other,
            None => UpstreamError::NotRunning("it ended".to_owned()),
        }),
    }
}

/// What a discovery result says.
fn discovered(result: &RawJson) -> Result<ServerFacts, UpstreamError> {
    let object = RawObject::parse(result)?;
    let speaks = object
        .get("supportedVersions")
        .and_then(|v| v.parse::<Vec<String>>().ok())
        .is_some_and(|all| all.iter().any(|v| v == ProtocolVersion::LATEST.as_str()));
    if !speaks {
        // It knows discovery but not our revision of the era: to us it is legacy or nothing.
        return Err(UpstreamError::Rpc(RpcError::new(
            RpcError::UNSUPPORTED_VERSION,
            format!("it does not speak {}", ProtocolVersion::LATEST),
        )));
    }
    let meta = object.get_object("_meta").unwrap_or_default();
    Ok(ServerFacts {
        era: Era::Modern,
        protocol_version: ProtocolVersion::LATEST.as_str().to_owned(),
        capabilities: object.get("capabilities").unwrap_or(RawJson::EMPTY_OBJECT),
        server_info: meta.get("io.modelcontextprotocol/serverInfo").or_else(|| object.get("serverInfo")),
        instructions: object.get_text("instructions"),
    })
}

/// What an `initialize` result says.
fn initialized(result: &RawJson) -> Result<ServerFacts, UpstreamError> {
    let object = RawObject::parse(result)?;
    let version = object.get_text("protocolVersion").unwrap_or_default();
    match ProtocolVersion::parse(&version) {
        Some(known) if known.era() == Era::Legacy => {}
        _ => {
            return Err(UpstreamError::Garbage(format!(
                "it wants to speak revision `{version}`, which is none of ours"
            )));
        }
    }
    Ok(ServerFacts {
        era: Era::Legacy,
        protocol_version: version,
        capabilities: object.get("capabilities").unwrap_or(RawJson::EMPTY_OBJECT),
        server_info: object.get("serverInfo"),
        instructions: object.get_text("instructions"),
    })
}
