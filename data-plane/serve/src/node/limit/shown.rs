//! What chat templates make of tools and calls: JSON that is longer than the caller's.
//!
//! Templates write a space after `,` and `:` or indent, and a number as it is and not as it was written: `1e15` becomes
//! `1000000000000000.0`. So few bytes can become many tokens, which are reserved here.

use provost_mcp::{RawJson, RawObject};
use serde::Deserialize;
use serde_json::Value;

/// Tokens that a template adds where it tells the model of tools, besides the tools.
const TOOLS_TOKENS: u64 = 512;
/// Bytes that a function of MCP's form becomes longer in a template, besides its indentation.
const FUNCTION_BYTES: u64 = 128;
/// Widest indentation of templates that indent.
const INDENT: u64 = 4;

#[derive(Deserialize)]
struct Message {
    tool_calls: Option<Vec<Made>>,
}

#[derive(Deserialize)]
struct Made {
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    arguments: Option<String>,
}

/// Bytes of the tools and calls of a body as a template shows them, at most. A body that cannot be read is refused before a
/// model sees it.
pub(super) fn bytes(params: &RawJson) -> u64 {
    let Ok(body) = RawObject::parse(params) else { return 0 };
    let tools = body.get("tools").and_then(|tools| tools.parse::<Vec<Value>>().ok()).unwrap_or_default();
    let around = if tools.is_empty() { 0 } else { TOOLS_TOKENS };
    let messages = body.get("messages").and_then(|messages| messages.parse::<Vec<Message>>().ok()).unwrap_or_default();
    let made = messages.into_iter().filter_map(|message| message.tool_calls).flatten();
    let arguments = made.filter_map(|made| made.function?.arguments);
    let arguments = arguments.filter_map(|arguments| serde_json::from_str::<Value>(&arguments).ok());
    tools.into_iter().chain(arguments).fold(around, |sum, value| sum.saturating_add(json(&value, 0)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolMessage {
    tool_calls: Option<Vec<ToolMade>>,
}

#[derive(Deserialize)]
struct ToolMade {
    arguments: Option<Value>,
}

/// The same of the arguments of the `inference` built-in's `chat`.
pub(super) fn bytes_of_tool(arguments: &RawObject) -> u64 {
    let tools = arguments.get("tools").and_then(|tools| tools.parse::<Vec<Value>>().ok()).unwrap_or_default();
    let around = if tools.is_empty() { 0 } else { TOOLS_TOKENS };
    let messages = arguments.get("messages").and_then(|list| list.parse::<Vec<ToolMessage>>().ok()).unwrap_or_default();
    let made = messages.into_iter().filter_map(|message| message.tool_calls).flatten();
    let made = made.filter_map(|made| made.arguments);
    // Templates see functions a level deeper.
    let tools = tools.iter().map(|tool| FUNCTION_BYTES.saturating_add(json(tool, 1)));
    tools.chain(made.map(|made| json(&made, 0))).fold(around, u64::saturating_add)
}

/// Bytes of a value so many levels deep, indented.
fn json(value: &Value, depth: u64) -> u64 {
    let line = |depth: u64| 2 + INDENT * depth;
    let written = |value: &Value| value.to_string().len() as u64;
    match value {
        Value::Array(items) => {
            items.iter().map(|item| line(depth + 1) + json(item, depth + 1)).sum::<u64>() + 2 + line(depth)
        }
        Value::Object(members) => {
            // A name is quoted, and what it holds may need escapes.
            let member = |(name, value): (&String, &Value)| {
                line(depth + 1) + written(&Value::from(name.as_str())) + 2 + json(value, depth + 1)
            };
            members.iter().map(member).sum::<u64>() + 2 + line(depth)
        }
        scalar => written(scalar),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Serialize;
    use serde_json::{json, ser::PrettyFormatter};

    use super::*;

    fn indented(value: &Value) -> u64 {
        let mut out = Vec::new();
        let pretty = PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty)).unwrap();
        out.len() as u64
    }

    #[test]
    fn no_value_is_shown_longer_than_is_reserved() {
        let mut deep: Value = serde_json::from_str("[1e15, -1e-7, 1.5e300, null, true, \"\\u00e9\\n\\\"\"]").unwrap();
        for level in 0..40 {
            deep =
                if level % 2 == 0 { Value::Array(vec![deep, json!({}), json!([])]) } else { json!({ "a\"\n": deep }) };
            let (reserved, shown) = (super::json(&deep, 0), indented(&deep));
            assert!((shown..=2 * shown).contains(&reserved), "{shown} of {reserved}");
        }
    }

    #[test]
    fn tools_and_arguments_of_calls_are_found_in_a_body() {
        let of = |body: Value| bytes(&RawJson::from(body));
        assert_eq!(of(json!({ "messages": [{ "role": "user", "content": "hi" }], "tools": [] })), 0);
        assert_eq!(of(json!({ "messages": 1, "tools": 2 })), 0);
        let tool = json!({ "type": "function", "function": { "name": "f" } });
        let with_tool = of(json!({ "tools": [tool] }));
        assert_eq!(with_tool, TOOLS_TOKENS + super::json(&tool, 0));
        let made = json!({ "id": "c", "function": { "name": "f", "arguments": "{\"n\":[1e15,1e15]}" } });
        let messages = json!([{ "role": "assistant", "content": null, "tool_calls": [made] }]);
        let shown = "{\"n\": [1000000000000000.0, 1000000000000000.0]}".len() as u64;
        assert!(of(json!({ "messages": messages })) >= shown);
        assert!(of(json!({ "messages": messages, "tools": [tool] })) >= shown + with_tool);
    }

    #[test]
    fn tools_and_calls_are_found_in_the_arguments_of_a_tool() {
        let of = |arguments: Value| bytes_of_tool(&RawObject::parse(&RawJson::from(arguments)).unwrap());
        assert_eq!(of(json!({ "messages": [{ "role": "user", "content": "hi" }] })), 0);
        let schema = json!({ "type": "object", "properties": { "n": { "type": "number", "maximum": 1e15 } } });
        let shown = json!({ "type": "function", "function": { "name": "f", "parameters": schema } });
        let with_tool = of(json!({ "tools": [{ "name": "f", "inputSchema": schema }] }));
        assert!(with_tool >= TOOLS_TOKENS + indented(&shown));
        let made = json!({ "id": "c", "name": "f", "arguments": { "n": [1e15, 1e15] } });
        let messages = json!([{ "role": "assistant", "content": "", "toolCalls": [made] }]);
        assert!(of(json!({ "messages": messages })) >= indented(&json!({ "n": [1e15, 1e15] })));
    }
}
