//! Asking the client, in the way of its era.

use std::collections::BTreeMap;

use rmcp::{
    ErrorData, RoleServer,
    model::{ElicitRequestParams, InputRequest, InputRequests, InputRequiredResult, InputResponses, ProtocolVersion},
    service::RequestContext,
};
use serde_json::{Value, json};

use super::value;

/// The member of a legacy request's `_meta` that names the input, for gateways that bridge eras.
pub(super) const INPUT_KEY: &str = "io.provost/inputKey";

/// Whether the request came in the modern era.
pub(super) fn is_modern(cx: &RequestContext<RoleServer>) -> bool {
    cx.protocol_version().is_some_and(|v| v.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}

/// What came of asking.
pub(super) enum Asked {
    /// Every input is there.
    Answers(BTreeMap<String, Value>),
    /// The client must be asked first.
    Required(InputRequests),
}

/// An elicitation with these properties, all required.
pub(super) fn elicitation(message: &str, properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(|o| o.keys()).collect();
    json!({"method": "elicitation/create", "params": {
        "mode": "form", "message": message,
        "requestedSchema": {"type": "object", "properties": properties, "required": required}}})
}

/// A sampling request.
pub(super) fn sampling(prompt: &str) -> Value {
    json!({"method": "sampling/createMessage", "params": {
        "messages": [{"role": "user", "content": {"type": "text", "text": prompt}}],
        "maxTokens": 100}})
}

/// A request for the roots.
pub(super) fn roots() -> Value {
    json!({"method": "roots/list", "params": {}})
}

/// Asks for all `wanted` at once (key and request).
pub(super) async fn ask(
    cx: &RequestContext<RoleServer>,
    given: Option<&InputResponses>,
    wanted: Vec<(&str, Value)>,
) -> Result<Asked, ErrorData> {
    if is_modern(cx) {
        return ask_modern(given, wanted);
    }
    let asks = wanted
        .into_iter()
        .map(|(key, request)| async move { ask_legacy(cx, key, request).await.map(|answer| (key.to_owned(), answer)) });
    let answers = futures::future::try_join_all(asks).await?;
    Ok(Asked::Answers(answers.into_iter().collect()))
}

/// An answer is an object; anything else is asked for again.
fn ask_modern(given: Option<&InputResponses>, wanted: Vec<(&str, Value)>) -> Result<Asked, ErrorData> {
    let mut answers = BTreeMap::new();
    let mut missing = InputRequests::new();
    for (key, request) in wanted {
        match given.and_then(|g| g.get(key)).filter(|v| v.is_object()) {
            Some(answer) => {
                answers.insert(key.to_owned(), answer.clone());
            }
            None => {
                missing.insert(key.to_owned(), value(request)?);
            }
        }
    }
    if missing.is_empty() { Ok(Asked::Answers(answers)) } else { Ok(Asked::Required(missing)) }
}

#[expect(deprecated, reason = "legacy clients are asked with what the legacy era has")]
async fn ask_legacy(cx: &RequestContext<RoleServer>, key: &str, request: Value) -> Result<Value, ErrorData> {
    let failed = |cause: rmcp::ServiceError| {
        ErrorData::internal_error(format!("the client did not answer `{key}`: {cause}"), None)
    };
    let answer = match value(request)? {
        InputRequest::CreateMessage(r) => json!(cx.peer.create_message(r.params).await.map_err(failed)?),
        InputRequest::Elicitation(r) => {
            let mut params: ElicitRequestParams = r.params;
            if let ElicitRequestParams::FormElicitationParams { meta, .. } = &mut params {
                *meta = Some(value(json!({INPUT_KEY: key}))?);
            }
            json!(cx.peer.create_elicitation(params).await.map_err(failed)?)
        }
        InputRequest::ListRoots(_) => json!(cx.peer.list_roots().await.map_err(failed)?),
        _ => return Err(ErrorData::internal_error("fixture: unknown kind of input", None)),
    };
    Ok(answer)
}

/// An `input_required` result.
pub(super) fn required(requests: InputRequests, state: Option<String>) -> InputRequiredResult {
    InputRequiredResult::new(Some(requests), state)
}
