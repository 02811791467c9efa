//! A caller's parameters as the upstream must see them.
//!
//! Invariants: only what must change is changed (the local name, and the reserved members of
//! `_meta`); every other byte goes on as it came.

use provost_data_pipeline::{ClientFacts, Operation};
use provost_mcp::{Era, ProtocolVersion, RawJson, RawObject, RequestId};

use super::handshake::client_info;
use crate::{UpstreamError, trace_headers::TraceHeaders};

const META: &str = "_meta";
const PROGRESS_TOKEN: &str = "progressToken";
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// The level that a legacy client's calls ask of a modern upstream when none was set here: the front
/// end knows the client's level and filters.
const DEFAULT_LOG_LEVEL: &str = "debug";

/// Parameters ready to be sent, and what was taken out of them.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) params: RawJson,
    /// The client's own progress token.
    pub(super) client_token: Option<RawJson>,
    /// The level from which on a modern client wants log messages.
    pub(super) log_level: Option<String>,
    pub(super) request_state: Option<String>,
    pub(super) input_responses: Option<RawJson>,
    /// The trace that it belongs to, which HTTP carries in headers too.
    pub(super) trace: TraceHeaders,
}

/// The reserved members of a modern request's `_meta`.
pub(super) fn modern_meta(mut meta: RawObject, capabilities: &RawJson, info: Option<&RawJson>) -> RawObject {
    meta.set(META_VERSION, RawJson::from_text(ProtocolVersion::LATEST.as_str()));
    meta.set(META_CLIENT_INFO, info.cloned().unwrap_or_else(client_info));
    meta.set(META_CAPABILITIES, capabilities.clone());
    meta
}

/// Rewrites `params` for an upstream of era `to`. `session_level` is the level that a legacy client
/// set for its session.
pub(super) fn outgoing(
    operation: &Operation,
    params: &RawJson,
    client: &ClientFacts,
    to: Era,
    id: &RequestId,
    session_level: Option<&str>,
) -> Result<Outgoing, UpstreamError> {
    let mut object = RawObject::parse(params)?;
    set_target(&mut object, operation);
    let given_meta = object.get_object(META);
    let had_meta = given_meta.is_some();
    let mut meta = given_meta.unwrap_or_default();
    let trace = TraceHeaders::of_meta(&meta);
    trace.keep_in(&mut meta);
    let client_token = meta.remove(PROGRESS_TOKEN);
    if client_token.is_some() {
        meta.set(PROGRESS_TOKEN, id.0.clone());
    }
    let log_level = meta.get_text(META_LOG_LEVEL);
    let (request_state, input_responses) = (object.get_text("requestState"), object.get("inputResponses"));
    match to {
        Era::Modern => {
            meta = modern_meta(meta, &client.capabilities, client.info.as_ref());
            if client.protocol_version.era() == Era::Legacy {
                // It may have been set at another node, which told the front end of this one.
                let level = session_level.or(log_level.as_deref()).unwrap_or(DEFAULT_LOG_LEVEL);
                meta.set_text(META_LOG_LEVEL, level);
            }
        }
        Era::Legacy => {
            for key in [META_VERSION, META_CLIENT_INFO, META_CAPABILITIES, META_LOG_LEVEL] {
                meta.remove(key);
            }
            object.remove("requestState");
            object.remove("inputResponses");
        }
    }
    if !meta.is_empty() {
        object.set(META, meta.finish());
    } else if had_meta {
        object.remove(META);
    }
    Ok(Outgoing { params: object.finish(), client_token, log_level, request_state, input_responses, trace })
}

/// Puts the operation's local name where its method has it.
fn set_target(object: &mut RawObject, operation: &Operation) {
    let put = |object: &mut RawObject, key: &str, local: &str| {
        if object.get_text(key).as_deref() != Some(local) {
            object.set_text(key, local);
        }
    };
    match operation {
        Operation::CallTool(local) | Operation::GetPrompt(local) => put(object, "name", local),
        Operation::ReadResource(local) | Operation::Subscribe(local) | Operation::Unsubscribe(local) => {
            put(object, "uri", local)
        }
        Operation::Task { task, .. } if !task.is_empty() => put(object, "taskId", task),
        Operation::Complete { is_prompt, target } => {
            let mut reference = object.get_object("ref").unwrap_or_default();
            put(&mut reference, if *is_prompt { "name" } else { "uri" }, target);
            object.set("ref", reference.finish());
        }
        _ => {}
    }
}

/// The syslog severities that MCP uses, from the least on (2025-11-25, server/utilities/logging).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Whether a message of level `level` is wanted by who asked for `wanted` and above.
pub(super) fn level_reaches(level: &str, wanted: &str) -> bool {
    let rank = |name: &str| LEVELS.iter().position(|l| *l == name);
    match (rank(level), rank(wanted)) {
        (Some(level), Some(wanted)) => level >= wanted,
        _ => true,
    }
}
