//! The tools.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use rmcp::{
    ErrorData, RoleServer,
    model::{CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ProgressNotificationParam},
    service::RequestContext,
};
use serde_json::{Value, json};

use super::{
    PIXEL_PNG, SILENCE_WAV,
    ask::{Asked, ask, elicitation, is_modern, required, roots, sampling},
    definitions::MORE,
    handler::{Change, Everything},
    result, tasks, value,
};

/// Between two steps of a tool that reports on its way.
const STEP: Duration = Duration::from_millis(50);

type Answers = BTreeMap<String, Value>;

fn text(text: impl Into<String>) -> Result<CallToolResponse, ErrorData> {
    content(json!([{"type": "text", "text": text.into()}]))
}

fn content(content: Value) -> Result<CallToolResponse, ErrorData> {
    result::<CallToolResult>(json!({"content": content})).map(Into::into)
}

/// Runs one call.
pub(super) async fn call(
    server: &Everything,
    request: CallToolRequestParams,
    cx: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let name = request.name.to_string();
    if name.starts_with("test_input_required_result_") {
        return input_required(server, &name, &request, &cx).await;
    }
    if tasks::is_task_tool(&name) {
        return tasks::call(server, &name, &request, &cx).await;
    }
    if let Some(answer) = plain_content(&name) {
        return content(answer);
    }
    if let Some(question) = question(&name, &request) {
        return asking(&name, question, &request, &cx).await;
    }
    let argument = |key: &str| request.arguments.as_ref().and_then(|a| a.get(key)).cloned();
    match name.as_str() {
        "test_error_handling" => result::<CallToolResult>(json!({"isError": true, "content":
            [{"type": "text", "text": "This tool intentionally returns an error for testing"}]}))
        .map(Into::into),
        "test_tool_with_logging" => log_three(&cx).await,
        "test_logging_tool" => log_if_wanted(&cx).await,
        "test_tool_with_progress" => progress(&cx).await,
        "test_reconnection" => {
            tokio::time::sleep(2 * STEP).await;
            text("Reconnection test completed")
        }
        "test_custom_header" => text(argument("value").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()),
        "json_schema_2020_12_tool" => text(json!(request.arguments).to_string()),
        "test_trigger_tool_change" => {
            server.announce(Change::Tools, &cx).await;
            text("The tool list changed")
        }
        "test_trigger_prompt_change" => {
            server.announce(Change::Prompts, &cx).await;
            text("The prompt list changed")
        }
        "touch_resource" => {
            let uri = argument("uri").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            server.announce(Change::Resource(&uri), &cx).await;
            text("touched")
        }
        "test_missing_capability" => missing_capability(&cx),
        "slow" => {
            if let Some(id) = argument("id").and_then(|v| v.as_str().map(str::to_owned)) {
                server.note_begun(id);
            }
            slow(server, argument("ms").and_then(|v| v.as_u64()).unwrap_or(0), &cx).await
        }
        "count_begun" => text(server.shared.begun.load(Ordering::SeqCst).to_string()),
        "count_in_session" => text((server.counted.fetch_add(1, Ordering::SeqCst) + 1).to_string()),
        "count_cancelled" => text(server.shared.cancelled.load(Ordering::SeqCst).to_string()),
        "blob" => text("x".repeat(argument("bytes").and_then(|v| v.as_u64()).unwrap_or(0) as usize)),
        "crash" => std::process::exit(70),
        more if more.starts_with(MORE) => text(more),
        other => Err(ErrorData::invalid_params(format!("there is no tool `{other}`"), None)),
    }
}

/// What needs neither arguments nor the client.
fn plain_content(name: &str) -> Option<Value> {
    let resource = |uri: &str, mime: &str, body: &str| json!({"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": body}});
    let image = json!({"type": "image", "data": PIXEL_PNG, "mimeType": "image/png"});
    Some(match name {
        "test_simple_text" => {
            json!([{"type": "text", "text": "This is a simple text response for testing."}])
        }
        "test_image_content" => json!([image]),
        "test_audio_content" => {
            json!([{"type": "audio", "data": SILENCE_WAV, "mimeType": "audio/wav"}])
        }
        "test_embedded_resource" => {
            json!([resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")])
        }
        "test_multiple_content_types" => json!([
            {"type": "text", "text": "Multiple content types test:"},
            image,
            resource("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
        ]),
        _ => return None,
    })
}

/// The one input that a tool asks for.
fn question(name: &str, request: &CallToolRequestParams) -> Option<Value> {
    let argument =
        |key: &str| request.arguments.as_ref().and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default();
    let options = |prefix: &str| json!([format!("{prefix}1"), format!("{prefix}2"), format!("{prefix}3")]);
    let titled = |what: &str| {
        json!([{"const": "value1", "title": format!("First {what}")},
               {"const": "value2", "title": format!("Second {what}")},
               {"const": "value3", "title": format!("Third {what}")}])
    };
    Some(match name {
        "test_sampling" => sampling(argument("prompt")),
        "test_elicitation" => elicitation(
            argument("message"),
            json!({"username": {"type": "string", "description": "User's response"},
                   "email": {"type": "string", "description": "User's email address"}}),
        ),
        "test_elicitation_sep1034_defaults" => elicitation(
            "Please check the values",
            json!({"name": {"type": "string", "default": "John Doe"},
                   "age": {"type": "integer", "default": 30},
                   "score": {"type": "number", "default": 95.5},
                   "status": {"type": "string", "enum": ["active", "inactive", "pending"],
                              "default": "active"},
                   "verified": {"type": "boolean", "default": true}}),
        ),
        "test_elicitation_sep1330_enums" => elicitation(
            "Please choose",
            json!({"untitledSingle": {"type": "string", "enum": options("option")},
                   "titledSingle": {"type": "string", "oneOf": titled("Option")},
                   "legacyEnum": {"type": "string", "enum": options("opt"),
                                  "enumNames": ["Option One", "Option Two", "Option Three"]},
                   "untitledMulti": {"type": "array",
                                     "items": {"type": "string", "enum": options("option")}},
                   "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}}}),
        ),
        "test_streaming_elicitation" => elicitation("Provide a value", json!({"value": {"type": "string"}})),
        _ => return None,
    })
}

async fn asking(
    name: &str,
    question: Value,
    request: &CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let answers = match ask(cx, request.input_responses.as_ref(), vec![("input", question)]).await? {
        Asked::Required(requests) => return Ok(required(requests, None).into()),
        Asked::Answers(answers) => answers,
    };
    let answer = &answers["input"];
    let action = answer["action"].as_str().unwrap_or_default();
    text(match name {
        "test_sampling" => format!("LLM response: {}", sampled_text(answer)),
        "test_elicitation" => format!("User response: action={action}, content={}", answer["content"]),
        _ => format!("Elicitation completed: action={action}, content={}", answer["content"]),
    })
}

fn sampled_text(answer: &Value) -> &str {
    let content = &answer["content"];
    let first = if content.is_array() { &content[0] } else { content };
    first["text"].as_str().unwrap_or_default()
}

/// The tools of the multi-round-trip scenarios. A legacy client has no rounds: it is asked again
/// and again within one call.
async fn input_required(
    server: &Everything,
    name: &str,
    request: &CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let string = json!({"type": "string"});
    let user_name = || ("user_name", elicitation("What is your name?", json!({"name": string})));
    let greeting = || ("greeting", sampling("Generate a greeting"));
    let client_roots = || ("client_roots", roots());
    let kind = name.trim_start_matches("test_input_required_result_");
    let (wanted, sealed): (Vec<(&str, Value)>, bool) = match kind {
        "elicitation" => (vec![user_name()], false),
        "sampling" => (vec![("capital_question", sampling("What is the capital of France?"))], false),
        "list_roots" => (vec![client_roots()], false),
        "request_state" | "tampered_state" => {
            (vec![("confirm", elicitation("Please confirm", json!({"ok": {"type": "boolean"}})))], true)
        }
        "multiple_inputs" => (vec![user_name(), greeting(), client_roots()], true),
        "multi_round" => return two_rounds(server, request, cx).await,
        "capabilities" => {
            let can = cx.client_capabilities().unwrap_or_default();
            let mut wanted = Vec::new();
            wanted.extend(can.elicitation.is_some().then(user_name));
            wanted.extend(can.sampling.is_some().then(greeting));
            wanted.extend(can.roots.is_some().then(client_roots));
            (wanted, false)
        }
        _ => return Err(ErrorData::invalid_params(format!("there is no tool `{name}`"), None)),
    };
    open_state(server, request)?;
    match ask(cx, request.input_responses.as_ref(), wanted).await? {
        Asked::Required(requests) => {
            let state = if sealed { Some(seal(server, 1)?) } else { None };
            Ok(required(requests, state).into())
        }
        Asked::Answers(answers) => text(summary(kind, &answers)),
    }
}

fn summary(kind: &str, answers: &Answers) -> String {
    match kind {
        "elicitation" => {
            format!("Hello, {}!", answers["user_name"]["content"]["name"].as_str().unwrap_or("friend"))
        }
        "sampling" => format!("Sampled: {}", sampled_text(&answers["capital_question"])),
        "list_roots" => format!("Roots: {}", answers["client_roots"]["roots"]),
        "request_state" | "tampered_state" => "Confirmed: state-ok".to_owned(),
        _ => format!("Inputs: {}", answers.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

async fn two_rounds(
    server: &Everything,
    request: &CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let string = json!({"type": "string"});
    let step1 = ("step1", elicitation("Step 1: What is your name?", json!({"name": string})));
    let step2 = ("step2", elicitation("Step 2: What is your favorite color?", json!({"color": string})));
    let responses = request.input_responses.as_ref();
    let round = open_state(server, request)?;
    if round < 2
        && let Asked::Required(requests) = ask(cx, responses, vec![step1]).await?
    {
        return Ok(required(requests, Some(seal(server, 1)?)).into());
    }
    match ask(cx, responses, vec![step2]).await? {
        Asked::Required(requests) => Ok(required(requests, Some(seal(server, 2)?)).into()),
        Asked::Answers(_) => text("Both rounds are done"),
    }
}

/// Sealed state that says which round it ends.
fn seal(server: &Everything, round: u64) -> Result<String, ErrorData> {
    server
        .shared
        .state_codec
        .seal_json(&json!({"round": round}))
        .map_err(|cause| ErrorData::internal_error(cause.to_string(), None))
}

/// The round of the state that came back; 0 if none did.
fn open_state(server: &Everything, request: &CallToolRequestParams) -> Result<u64, ErrorData> {
    let Some(state) = &request.request_state else { return Ok(0) };
    let state: Value = server
        .shared
        .state_codec
        .open_json(state)
        .map_err(|_| ErrorData::invalid_params("the requestState was not made here", None))?;
    Ok(state["round"].as_u64().unwrap_or(0))
}

async fn log_three(cx: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        log(cx, line).await;
        tokio::time::sleep(STEP).await;
    }
    text("Logging completed")
}

async fn log_if_wanted(cx: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    log(cx, "a message").await;
    text("Logging tool completed")
}

/// Logs a line, to modern clients only if the request asks for it.
#[expect(deprecated, reason = "logging is still served")]
async fn log(cx: &RequestContext<RoleServer>, line: &str) {
    use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
    let level = if is_modern(cx) { cx.meta.log_level() } else { Some(LoggingLevel::Info) };
    if let Some(level) = level {
        let message = LoggingMessageNotificationParam::new(level, json!(line));
        // A client that went away needs no log.
        let _ = cx.peer.notify_logging_message(message).await;
    }
}

async fn progress(cx: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    let token = cx.meta.get_progress_token();
    for done in [0.0, 50.0, 100.0] {
        if let Some(token) = &token {
            let report = ProgressNotificationParam::new(token.clone(), done).with_total(100.0);
            let _ = cx.peer.notify_progress(report).await;
        }
        tokio::time::sleep(STEP).await;
    }
    text("Progress completed")
}

fn missing_capability(cx: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    if cx.client_capabilities().is_some_and(|c| c.sampling.is_some()) {
        return text("The capability is there");
    }
    let needed: ClientCapabilities = value(json!({"sampling": {}}))?;
    Err(ErrorData::missing_required_client_capability(needed))
}

async fn slow(server: &Everything, ms: u64, cx: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    /// Counts the call as cancelled unless it came to its end: the future may simply be dropped.
    struct Watch<'a>(&'a Everything, bool);
    impl Drop for Watch<'_> {
        fn drop(&mut self) {
            if !self.1 {
                self.0.shared.cancelled.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    server.shared.begun.fetch_add(1, Ordering::SeqCst);
    let mut watch = Watch(server, false);
    tokio::select! {
        () = cx.ct.cancelled() => text("cancelled"),
        () = tokio::time::sleep(Duration::from_millis(ms)) => {
            watch.1 = true;
            text("slept")
        }
    }
}
