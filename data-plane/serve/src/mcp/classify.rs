//! From method and parameters to what the pipeline is asked to do.

use provost_data_pipeline::Operation;
use provost_mcp::{Era, RawObject, RpcError};

/// The operation, or -32601 for a method that the era does not have, or -32602 for parameters that
/// do not name what the method acts on.
pub(super) fn operation(method: &str, params: &RawObject, era: Era) -> Result<Operation, RpcError> {
    let named = |member: &'static str| {
        params.get_text(member).ok_or_else(|| {
            RpcError::with_code(
                RpcError::INVALID_PARAMS,
                "PV-MCP-INVALID-PARAMS",
                format!("params.{member} must be a string"),
            )
        })
    };
    let task = |task: String| Operation::Task { method: method.to_owned(), task };
    Ok(match (method, era) {
        ("server/discover", Era::Modern) => Operation::Discover,
        ("subscriptions/listen", Era::Modern) => Operation::Listen,
        ("tools/list", _) => Operation::ListTools,
        ("prompts/list", _) => Operation::ListPrompts,
        ("resources/list", _) => Operation::ListResources,
        ("resources/templates/list", _) => Operation::ListResourceTemplates,
        ("tools/call", _) => Operation::CallTool(named("name")?),
        ("prompts/get", _) => Operation::GetPrompt(named("name")?),
        ("resources/read", _) => Operation::ReadResource(named("uri")?),
        ("completion/complete", _) => completion(params)?,
        ("tasks/get" | "tasks/cancel", _) | ("tasks/update", Era::Modern) => task(named("taskId")?),
        ("tasks/result", Era::Legacy) => task(named("taskId")?),
        ("tasks/list", Era::Legacy) => task(String::new()),
        ("resources/subscribe", Era::Legacy) => Operation::Subscribe(named("uri")?),
        ("resources/unsubscribe", Era::Legacy) => Operation::Unsubscribe(named("uri")?),
        ("logging/setLevel", Era::Legacy) => Operation::SetLogLevel,
        _ => {
            let shown: String = method.chars().take(64).collect();
            return Err(RpcError::with_code(
                RpcError::METHOD_NOT_FOUND,
                "PV-MCP-METHOD-NOT-FOUND",
                format!("Method not found: {shown}"),
            ));
        }
    })
}

fn completion(params: &RawObject) -> Result<Operation, RpcError> {
    let reference = params.get_object("ref").unwrap_or_default();
    let found = match reference.get_text("type").as_deref() {
        Some("ref/prompt") => reference.get_text("name").map(|t| (true, t)),
        Some("ref/resource") => reference.get_text("uri").map(|t| (false, t)),
        _ => None,
    };
    match found {
        Some((is_prompt, target)) => Ok(Operation::Complete { is_prompt, target }),
        None => Err(RpcError::with_code(
            RpcError::INVALID_PARAMS,
            "PV-MCP-INVALID-PARAMS",
            "params.ref must be a ref/prompt with a name or a ref/resource with a uri",
        )),
    }
}
