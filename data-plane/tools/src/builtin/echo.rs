//! `echo`: says back what it is told. For first tries and for measuring the way there and back.

use serde_json::{Map, Value, json};

use super::Outcome;

pub(super) fn tools() -> Vec<Value> {
    vec![json!({
        "name": "echo",
        "title": "Echo",
        "description": "Returns the text that it is given.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "Any text."}},
            "required": ["text"],
            "additionalProperties": false,
        },
        "annotations": {"readOnlyHint": true, "idempotentHint": true, "openWorldHint": false},
    })]
}

pub(super) fn call(arguments: &Map<String, Value>) -> Outcome {
    match arguments.get("text").and_then(Value::as_str) {
        Some(text) => Outcome::text(text),
        None => Outcome::failure("`text` is missing: give the text to echo"),
    }
}
