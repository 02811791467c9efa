//! From method and parameters to what the pipeline is asked to do.

use provost_data_pipeline::Operation;
use provost_mcp::{Era, LogLevel, Method, RawJson, RawObject, RpcError, meta::key};

use super::{legacy::Entered, post::Post, sessions::LocalSession};

/// Members of the params that a retry of the modern era has. Clients of older revisions are asked in another way, and
/// what they write there would be taken for what this node opened, which guards pass over.
const OF_RETRIES: [&str; 2] = ["requestState", "inputResponses"];

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
    // What is not in the list of methods does not exist, whatever is written below.
    let listed = Method::parse(method).filter(|method| method.is_of(era)).map_or("", Method::as_str);
    Ok(match (listed, era) {
        ("server/discover", Era::Modern) => Operation::Discover,
        ("subscriptions/listen", Era::Modern) => Operation::Listen,
        ("tools/list", _) => whole(Operation::ListTools, params)?,
        ("prompts/list", _) => whole(Operation::ListPrompts, params)?,
        ("resources/list", _) => whole(Operation::ListResources, params)?,
        ("resources/templates/list", _) => whole(Operation::ListResourceTemplates, params)?,
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

/// A list. All of it is one page, so no cursor is one that was given here (MCP, "Pagination": an invalid cursor is
/// -32602). Some clients write none as `null` or as an empty string.
fn whole(list: Operation, params: &RawObject) -> Result<Operation, RpcError> {
    match params.get("cursor") {
        Some(cursor) if !matches!(cursor.as_str(), "null" | "\"\"") => Err(RpcError::with_code(
            RpcError::INVALID_PARAMS,
            "PV-MCP-INVALID-PARAMS",
            "params.cursor is not one that was given here: lists are given whole; ask without it",
        )),
        _ => Ok(list),
    }
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

/// What a legacy request asks for: the operation, and its parameters as the executor gets them.
pub(super) fn legacy_operation(post: &Post, entered: Option<&Entered>) -> Result<(Operation, RawJson), RpcError> {
    let mut params = post.params.clone();
    let asked = operation(&post.method, &params, Era::Legacy)?;
    for member in OF_RETRIES {
        params.remove(member);
    }
    if let Some(entered) = entered {
        note_level(&asked, &params, &entered.local)?;
        // A modern upstream learns the level from each request.
        let level = *entered.local.level.lock();
        if let Some(level) = level.filter(|_| asked != Operation::SetLogLevel) {
            params.set_in("_meta", key::LOG_LEVEL, RawJson::from_text(level.as_str()));
        }
    }
    Ok((asked, params.finish()))
}

fn note_level(operation: &Operation, params: &RawObject, local: &LocalSession) -> Result<(), RpcError> {
    if *operation != Operation::SetLogLevel {
        return Ok(());
    }
    let level = params.get_text("level").and_then(|l| LogLevel::parse(&l)).ok_or_else(|| {
        RpcError::with_code(
            RpcError::INVALID_PARAMS,
            "PV-MCP-INVALID-PARAMS",
            "params.level must be debug, info, notice, warning, error, critical, alert or emergency",
        )
    })?;
    *local.level.lock() = Some(level);
    Ok(())
}
