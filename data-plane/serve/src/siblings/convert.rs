//! Between wire forms and what they mean here.

use bytes::Bytes;
use provost_data_pipeline::{ClientFacts, Execution, Operation, Reply};
use provost_data_tools::{PluginId, ServerFacts, SharedSession};
use provost_mcp::{Era, JsonLimits, ProtocolVersion, RawJson, RpcError};
use provost_types::{CallStatus, Name, PrincipalRef};
use provost_wire::sibling::{Client, Ended, PluginRef, RpcFailure, UpstreamSession, ended};
use tonic::Status;

use super::sibling::MAX_MESSAGE_BYTES;

/// JSON of a sibling: it was checked where it came in, and is looked at again because it is cheap.
#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
pub(super) fn json(bytes: Bytes) -> Result<RawJson, Status> {
    let limits = JsonLimits { max_bytes: MAX_MESSAGE_BYTES, ..JsonLimits::RESPONSE };
    RawJson::check(bytes, &limits).map_err(|fault| Status::invalid_argument(format!("PV-SIBLING-MESSAGE: {fault}")))
}

pub(super) fn failure(error: &RpcError) -> RpcFailure {
    RpcFailure {
        code: error.code,
        message: error.message.clone(),
        data: error.data.as_ref().map(RawJson::bytes).unwrap_or_default(),
    }
}

#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
pub(super) fn rpc_error(failure: RpcFailure) -> Result<RpcError, Status> {
    let RpcFailure { code, message, data } = failure;
    let data = if data.is_empty() { None } else { Some(json(data)?) };
    Ok(RpcError { code, message, data })
}

/// The operations that one plugin executes, by method.
#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
pub(super) fn operation(method: &str, target: String, is_prompt: bool) -> Result<Operation, Status> {
    Ok(match method {
        "tools/call" => Operation::CallTool(target),
        "prompts/get" => Operation::GetPrompt(target),
        "resources/read" => Operation::ReadResource(target),
        "completion/complete" => Operation::Complete { is_prompt, target },
        "resources/subscribe" => Operation::Subscribe(target),
        "resources/unsubscribe" => Operation::Unsubscribe(target),
        "logging/setLevel" => Operation::SetLogLevel,
        _ if method.starts_with("tasks/") => Operation::Task { method: method.to_owned(), task: target },
        other => return Err(Status::invalid_argument(format!("PV-SIBLING-MESSAGE: no operation `{other}`"))),
    })
}

pub(super) fn plugin_ref(plugin: &PluginId) -> PluginRef {
    PluginRef { tenant: plugin.tenant.to_string(), name: plugin.name.to_string(), digest: plugin.digest.to_string() }
}

pub(super) fn client(facts: &ClientFacts, principal: &PrincipalRef) -> Client {
    Client {
        tenant: principal.tenant.to_string(),
        principal: principal.name.to_string(),
        protocol_version: facts.protocol_version.as_str().to_owned(),
        capabilities: facts.capabilities.bytes(),
        info: facts.info.as_ref().map(RawJson::bytes).unwrap_or_default(),
        session: facts.session.as_deref().unwrap_or_default().to_owned(),
        transport: facts.transport.to_owned(),
    }
}

/// Who a call is for.
#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
pub(super) fn caller(client: Client) -> Result<(ClientFacts, PrincipalRef), Status> {
    let bad = |what: String| Status::invalid_argument(format!("PV-SIBLING-MESSAGE: {what}"));
    let name = |text: &str| Name::new(text).map_err(|cause| bad(cause.to_string()));
    let principal = PrincipalRef { tenant: name(&client.tenant)?, name: name(&client.principal)? };
    let version = ProtocolVersion::parse(&client.protocol_version);
    let facts = ClientFacts {
        protocol_version: version.ok_or_else(|| bad(format!("revision `{}`", client.protocol_version)))?,
        info: if client.info.is_empty() { None } else { Some(json(client.info)?) },
        capabilities: json(client.capabilities)?,
        session: Some(client.session).filter(|session| !session.is_empty()).map(Into::into),
        // Those of the node that took the call have been recorded there.
        address: None,
        transport: TRANSPORT,
    };
    Ok((facts, principal))
}

/// How a call that another node took comes in.
const TRANSPORT: &str = "sibling";

pub(super) fn ended(execution: &Execution) -> Ended {
    let (reply, is_error) = match &execution.reply {
        Reply::Result { body, is_error } => (ended::Reply::Result(body.bytes()), *is_error),
        Reply::InputRequired(body) => (ended::Reply::InputRequired(body.bytes()), false),
        Reply::Error(error) => (ended::Reply::Failure(failure(error)), false),
    };
    let is_cancelled = execution.status == CallStatus::Cancelled;
    Ended { reply: Some(reply), is_error, is_cancelled }
}

#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
pub(super) fn execution(ended: Ended) -> Result<Execution, Status> {
    let Ended { reply, is_error, is_cancelled } = ended;
    Ok(match reply.ok_or_else(|| Status::invalid_argument("PV-SIBLING-MESSAGE: an end without reply"))? {
        _ if is_cancelled => Execution::cancelled(),
        ended::Reply::Result(body) => Execution::result(json(body)?, is_error),
        ended::Reply::InputRequired(body) => Execution::input_required(json(body)?),
        ended::Reply::Failure(failure) => Execution::error(rpc_error(failure)?),
    })
}

pub(super) fn facts_to_wire(facts: &ServerFacts) -> UpstreamSession {
    UpstreamSession {
        id: String::new(),
        endpoint: 0,
        protocol_version: facts.protocol_version.clone(),
        capabilities: facts.capabilities.bytes(),
        server_info: facts.server_info.as_ref().map(RawJson::bytes).unwrap_or_default(),
        instructions: facts.instructions.clone().unwrap_or_default(),
    }
}

pub(super) fn session_to_wire(session: &SharedSession) -> UpstreamSession {
    let endpoint = session.endpoint as u64;
    UpstreamSession { id: session.id.clone(), endpoint, ..facts_to_wire(&session.facts) }
}

#[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
pub(super) fn session(wire: UpstreamSession) -> Result<SharedSession, Status> {
    let UpstreamSession { id, protocol_version, capabilities, server_info, instructions, endpoint } = wire;
    let version = ProtocolVersion::parse(&protocol_version);
    let era = version.map(ProtocolVersion::era).unwrap_or(Era::Legacy);
    let facts = ServerFacts {
        era,
        protocol_version,
        capabilities: json(capabilities)?,
        server_info: if server_info.is_empty() { None } else { Some(json(server_info)?) },
        instructions: Some(instructions).filter(|text| !text.is_empty()),
    };
    let endpoint = usize::try_from(endpoint).unwrap_or(usize::MAX);
    Ok(SharedSession { id, facts, endpoint })
}
