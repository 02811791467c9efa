//! Which client capability an input request needs.

use crate::{RawJson, RawObject, RpcError, meta::key};

/// The methods whose answer may be `input_required` (MCP 2026-07-28, multi round-trip requests).
pub fn may_require_input(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// The capability (and its sub-capability) that a request from server to client needs.
fn needed_for(method: &str, params: Option<&RawJson>) -> Option<(&'static str, Option<&'static str>)> {
    let params = params.and_then(|p| RawObject::parse(p).ok()).unwrap_or_default();
    match method {
        "elicitation/create" => {
            let url = params.get_text("mode").as_deref() == Some("url");
            Some(("elicitation", url.then_some("url")))
        }
        "sampling/createMessage" => Some(("sampling", params.has("tools").then_some("tools"))),
        "roots/list" => Some(("roots", None)),
        _ => None,
    }
}

/// Whether a client with these capabilities may be asked this. Unknown methods never.
pub fn may_ask(capabilities: &RawJson, method: &str, params: Option<&RawJson>) -> bool {
    let Some((name, sub)) = needed_for(method, params) else { return false };
    let declared = RawObject::parse(capabilities).ok().and_then(|c| c.get_object(name));
    match (declared, sub) {
        (Some(_), None) => true,
        (Some(capability), Some(sub)) => capability.has(sub),
        (None, _) => false,
    }
}

/// The capabilities that `input_requests` (key → `{method, params}`) needs and the client did not
/// declare, as a `ClientCapabilities` object; `None` if it declared all.
pub fn missing_for(capabilities: &RawJson, input_requests: &RawJson) -> Option<RawJson> {
    let requests = RawObject::parse(input_requests).ok()?;
    let mut missing = RawObject::new();
    for (_, request) in requests.iter() {
        let Ok(request) = RawObject::parse(&request) else { continue };
        let method = request.get_text("method").unwrap_or_default();
        let params = request.get("params");
        if may_ask(capabilities, &method, params.as_ref()) {
            continue;
        }
        if let Some((name, sub)) = needed_for(&method, params.as_ref()) {
            match sub {
                Some(sub) => missing.set_in(name, sub, RawJson::EMPTY_OBJECT),
                None => missing.set_default(name, || RawJson::EMPTY_OBJECT),
            }
        }
    }
    (!missing.is_empty()).then(|| missing.finish())
}

/// Whether the client declared the tasks extension.
pub fn declares_tasks(capabilities: &RawJson) -> bool {
    RawObject::parse(capabilities)
        .ok()
        .and_then(|c| c.get_object("extensions"))
        .is_some_and(|e| e.has(key::TASKS_EXTENSION))
}

/// `{"extensions":{"io.modelcontextprotocol/tasks":{}}}`.
pub fn tasks_extension() -> RawJson {
    let mut capabilities = RawObject::new();
    capabilities.set_in("extensions", key::TASKS_EXTENSION, RawJson::EMPTY_OBJECT);
    capabilities.finish()
}

/// -32021 with the capabilities that are missing.
pub fn missing_capability(required: RawJson) -> RpcError {
    let mut data = RawObject::new();
    data.set("requiredCapabilities", required);
    data.set_text("code", "PV-MCP-CAPABILITY-MISSING");
    RpcError {
        code: RpcError::MISSING_CLIENT_CAPABILITY,
        message: "the request needs a capability that the client did not declare".to_owned(),
        data: Some(data.finish()),
    }
}
