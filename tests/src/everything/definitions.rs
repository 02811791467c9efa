//! The tools' definitions.

use std::{collections::HashMap, sync::LazyLock};

use rmcp::{ErrorData, model::Tool};
use serde_json::{Value, json};

use super::value;

/// Tools without parameters: name and description.
const PLAIN: &[(&str, &str)] = &[
    ("test_simple_text", "Returns a text."),
    ("test_image_content", "Returns an image."),
    ("test_audio_content", "Returns a sound."),
    ("test_embedded_resource", "Returns a resource."),
    ("test_multiple_content_types", "Returns a text, an image and a resource."),
    ("test_tool_with_logging", "Logs three messages while it runs."),
    ("test_error_handling", "Fails, as a tool does."),
    ("test_tool_with_progress", "Reports progress three times."),
    ("test_elicitation_sep1034_defaults", "Asks with a form that has defaults."),
    ("test_elicitation_sep1330_enums", "Asks with a form of choices."),
    ("test_reconnection", "Answers after a moment."),
    ("test_trigger_tool_change", "Says that the tool list changed."),
    ("test_trigger_prompt_change", "Says that the prompt list changed."),
    ("test_missing_capability", "Needs the sampling capability."),
    ("test_streaming_elicitation", "Asks for a value."),
    ("test_logging_tool", "Logs one message if logging is asked for."),
    ("test_input_required_result_elicitation", "Asks for a name."),
    ("test_input_required_result_sampling", "Asks for a sampled text."),
    ("test_input_required_result_list_roots", "Asks for the roots."),
    ("test_input_required_result_request_state", "Asks, and checks its state."),
    ("test_input_required_result_multiple_inputs", "Asks for three inputs at once."),
    ("test_input_required_result_multi_round", "Asks twice."),
    ("test_input_required_result_tampered_state", "Refuses state that it did not make."),
    ("test_input_required_result_capabilities", "Asks only for what the client can do."),
    ("failing_job", "A task that ends in a tool error."),
    ("protocol_error_job", "A task that ends in a protocol error."),
    ("multi_input", "A task that asks for two inputs."),
    ("test_tool_with_task", "Asks, then becomes a task."),
    ("count_begun", "How many calls of `slow` have begun."),
    ("count_in_session", "How often it was called in its legacy session, or process."),
    ("count_cancelled", "How many calls of `slow` were cancelled."),
    ("crash", "Ends the server's process in the middle of the call."),
];

/// Tools with parameters: name, description, schema.
fn with_parameters() -> Vec<(&'static str, &'static str, Value)> {
    let object =
        |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let text = json!({"type": "string"});
    vec![
        ("test_sampling", "Asks the client's model.", object(json!({"prompt": text}), json!(["prompt"]))),
        ("test_elicitation", "Asks the user.", object(json!({"message": text}), json!(["message"]))),
        (
            "test_custom_header",
            "Has a parameter that is mirrored in a header.",
            object(json!({"value": {"type": "string", "x-mcp-header": "Value"}}), json!(["value"])),
        ),
        ("json_schema_2020_12_tool", "Has a schema with references.", json_schema_2020_12()),
        ("greet", "Says hello.", object(json!({"name": text}), json!(["name"]))),
        (
            "slow_compute",
            "Takes a number of seconds.",
            object(json!({"seconds": {"type": "number"}, "label": text}), json!([])),
        ),
        ("confirm_delete", "A task that asks first.", object(json!({"filename": text}), json!([]))),
        (
            "slow",
            "Waits until it is cancelled or the time is over.",
            object(json!({"ms": {"type": "integer", "minimum": 0}, "id": text}), json!(["ms"])),
        ),
        (
            "blob",
            "Returns a text of this many bytes.",
            object(json!({"bytes": {"type": "integer", "minimum": 0}}), json!(["bytes"])),
        ),
        ("touch_resource", "Says that a resource changed.", object(json!({"uri": text}), json!(["uri"]))),
    ]
}

/// The schema that the suite wants back unchanged.
fn json_schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}}
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"}
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false
    })
}

/// A file whose text, where it is named, is the description of `greet`: so that a definition can change while the
/// server runs.
const GREETING: &str = "EVERYTHING_GREETING";

fn described(name: &str, description: &str) -> String {
    let file = std::env::var_os(GREETING).filter(|_| name == "greet");
    file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_else(|| description.to_owned())
}

/// Every tool.
pub(super) fn tools() -> Result<Vec<Tool>, ErrorData> {
    let empty = || json!({"type": "object", "properties": {}});
    PLAIN
        .iter()
        .map(|(name, description)| (*name, *description, empty()))
        .chain(with_parameters())
        .map(|(name, description, schema)| {
            value(json!({"name": name, "description": described(name, description), "inputSchema": schema}))
        })
        .collect()
}

/// One of them, as it was when one was first asked for: its parameters do not change. The SDK asks with each call, and making all of
/// them anew took longer than the rest of the call.
pub(super) fn tool(name: &str) -> Option<Tool> {
    static BY_NAME: LazyLock<HashMap<String, Tool>> = LazyLock::new(|| {
        let tools = tools().unwrap_or_default();
        tools.into_iter().map(|tool| (tool.name.to_string(), tool)).collect()
    });
    BY_NAME.get(name).cloned()
}

/// How the names of further tools begin.
pub(super) const MORE: &str = "more_";

/// Further tools, each with a schema of its own: for servers with many.
pub(super) fn more_tools(count: usize) -> Result<Vec<Tool>, ErrorData> {
    let tool = |n: usize| {
        let schema = json!({
            "type": "object",
            "properties": {
                "text": {"type": "string", "description": "What to look for.", "maxLength": 1_000},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100 + n},
            },
            "required": [],
        });
        let description = format!("Tool number {n} of many: it takes a text and a limit, and answers with its name.");
        value(json!({"name": format!("{MORE}{n:05}"), "description": description, "inputSchema": schema}))
    };
    (0..count).map(tool).collect()
}
