//! Types of protobuf itself that JSON writes in its own way (the JSON mapping of proto3).

use prost_reflect::Kind;
use serde_json::{Value, json};

use super::schema::{Side, scalar};

/// What a message is as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object.
    Object,
    /// A list.
    List,
    /// Something else than an object and a list.
    Value,
    /// Anything.
    Any,
}

/// The shape of a message.
pub(super) fn shape(full_name: &str) -> Shape {
    match full_name.strip_prefix("google.protobuf.") {
        Some("ListValue") => Shape::List,
        Some("Value") => Shape::Any,
        Some(
            "Timestamp" | "Duration" | "FieldMask" | "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value"
            | "Int32Value" | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue",
        ) => Shape::Value,
        _ => Shape::Object,
    }
}

/// The schema of such a message; `None`: it is a message like others.
pub(super) fn schema(full_name: &str, side: Side) -> Option<Value> {
    let wrapped = |kind: Kind| Some(scalar(&kind, side));
    match full_name.strip_prefix("google.protobuf.")? {
        "Timestamp" => Some(json!({"type": "string", "format": "date-time"})),
        "Duration" => {
            let text = "Seconds, such as 1.5s.";
            Some(json!({"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$", "description": text}))
        }
        "FieldMask" => {
            let text = "Paths of fields, with commas between them.";
            Some(json!({"type": "string", "description": text}))
        }
        "Struct" => Some(json!({"type": "object"})),
        "ListValue" => Some(json!({"type": "array"})),
        "Value" => Some(json!({})),
        "Any" => {
            let text = "Which message it is: type.googleapis.com/ and its full name.";
            let kind = json!({"type": "string", "description": text});
            Some(json!({"type": "object", "properties": {"@type": kind}, "required": ["@type"]}))
        }
        "Empty" => Some(match side {
            Side::Input => json!({"type": "object", "additionalProperties": false}),
            Side::Output => json!({"type": "object"}),
        }),
        "DoubleValue" => wrapped(Kind::Double),
        "FloatValue" => wrapped(Kind::Float),
        "Int64Value" => wrapped(Kind::Int64),
        "UInt64Value" => wrapped(Kind::Uint64),
        "Int32Value" => wrapped(Kind::Int32),
        "UInt32Value" => wrapped(Kind::Uint32),
        "BoolValue" => wrapped(Kind::Bool),
        "StringValue" => wrapped(Kind::String),
        "BytesValue" => wrapped(Kind::Bytes),
        _ => None,
    }
}
