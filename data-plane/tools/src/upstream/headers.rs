//! The headers that mirror a modern request's body (SEP-2243).

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName};
use provost_mcp::RawJson;
use serde_json::{Map, Value};

use super::http::header_value;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const ANNOTATION: &str = "x-mcp-header";

/// Room for what a request mostly has, with what its connection and its plugin add.
const USUAL_HEADERS: usize = 12;

/// `Mcp-Method`, and `Mcp-Name` where the method names something.
pub(super) fn standard_headers(method: &str, name: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL_HEADERS);
    if let Some(value) = header_value(method) {
        headers.insert(METHOD, value);
    }
    if let Some(value) = name.and_then(|n| header_value(&encode(n))) {
        headers.insert(NAME, value);
    }
    headers
}

/// Adds `Mcp-Param-*` for the arguments that the tool's schema marks.
pub(super) fn add_param_headers(headers: &mut HeaderMap, definition: &RawJson, params: &RawJson) {
    // Most schemas mark nothing.
    if memchr::memmem::find(definition.as_bytes(), ANNOTATION.as_bytes()).is_none() {
        return;
    }
    let (Ok(definition), Ok(params)) = (definition.parse::<Value>(), params.parse::<Value>()) else {
        return;
    };
    let mut marks = Vec::new();
    collect(&definition["inputSchema"], &mut Vec::new(), &mut marks);
    for (path, header) in marks {
        let value = path.iter().try_fold(&params["arguments"], |v, key| v.get(key));
        let text = match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            _ => continue,
        };
        let name = HeaderName::from_bytes(format!("mcp-param-{header}").as_bytes());
        if let (Ok(name), Some(value)) = (name, header_value(&encode(&text))) {
            headers.insert(name, value);
        }
    }
}

/// Text as a header value: in Base64 where it could not travel as it is.
fn encode(text: &str) -> Cow<'_, str> {
    let edge = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let bytes = text.as_bytes();
    let wrapped = text.starts_with("=?base64?") && text.ends_with("?=");
    let plain = bytes.iter().all(|b| (0x20..0x7f).contains(b));
    if plain && !wrapped && !edge(bytes.first()) && !edge(bytes.last()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("=?base64?{}?=", BASE64_STANDARD.encode(text)))
    }
}

/// The marks on properties reached through `properties` alone.
fn collect<'a>(schema: &'a Value, path: &mut Vec<&'a str>, out: &mut Vec<(Vec<&'a str>, &'a str)>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, property) in properties {
        path.push(name);
        if let Some(header) = property.get(ANNOTATION).and_then(Value::as_str) {
            out.push((path.clone(), header));
        }
        collect(property, path, out);
        path.pop();
    }
}

/// Whether a tool's marks are valid; a tool with others must not be offered. Marks are non-empty
/// header tokens, unique whatever their case, on properties of a primitive type that are reached
/// through `properties` alone.
pub(super) fn valid_header_annotations(definition: &RawJson) -> bool {
    if memchr::memmem::find(definition.as_bytes(), ANNOTATION.as_bytes()).is_none() {
        return true;
    }
    let Ok(definition) = definition.parse::<Value>() else { return false };
    let Some(schema) = definition["inputSchema"].as_object() else { return true };
    let mut seen = Vec::new();
    valid_schema(schema, Place::Root, &mut seen)
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    /// Reached through `properties` alone.
    Property,
    Elsewhere,
}

fn valid_schema(schema: &Map<String, Value>, place: Place, seen: &mut Vec<String>) -> bool {
    if let Some(mark) = schema.get(ANNOTATION) {
        let primitive = matches!(schema.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"));
        let Some(mark) = mark.as_str().filter(|m| is_token(m)) else { return false };
        let lower = mark.to_ascii_lowercase();
        if place != Place::Property || !primitive || seen.contains(&lower) {
            return false;
        }
        seen.push(lower);
    }
    schema.iter().all(|(key, value)| match (key.as_str(), value) {
        // Data, not schemas.
        (ANNOTATION | "default" | "const" | "enum" | "examples", _) => true,
        ("properties", Value::Object(properties)) => {
            let inner = if place == Place::Elsewhere { place } else { Place::Property };
            properties.values().all(|v| v.as_object().is_none_or(|s| valid_schema(s, inner, seen)))
        }
        ("$defs" | "definitions" | "dependentSchemas" | "patternProperties", Value::Object(map)) => {
            map.values().all(|v| valid_elsewhere(v, seen))
        }
        (_, value) => valid_elsewhere(value, seen),
    })
}

fn valid_elsewhere(value: &Value, seen: &mut Vec<String>) -> bool {
    match value {
        Value::Object(schema) => valid_schema(schema, Place::Elsewhere, seen),
        Value::Array(items) => items.iter().all(|item| valid_elsewhere(item, seen)),
        _ => true,
    }
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_are_checked() {
        let tool = |schema: Value| RawJson::from(json!({"name": "t", "inputSchema": schema}));
        let property = |p: Value| tool(json!({"type": "object", "properties": {"a": p}}));
        for good in [
            property(json!({"type": "string"})),
            property(json!({"type": "string", "x-mcp-header": "Region"})),
            property(json!({"type": "object", "properties": {"b": {"type": "integer", "x-mcp-header": "B"}}})),
            property(json!({"type": "string", "default": {"x-mcp-header": 3}})),
        ] {
            assert!(valid_header_annotations(&good), "{} was refused", good.as_str());
        }
        for bad in [
            property(json!({"type": "string", "x-mcp-header": ""})),
            property(json!({"type": "string", "x-mcp-header": "a b"})),
            property(json!({"type": "string", "x-mcp-header": 3})),
            property(json!({"type": "number", "x-mcp-header": "N"})),
            property(json!({"type": "array", "items": {"type": "string", "x-mcp-header": "I"}})),
            tool(json!({"x-mcp-header": "Root"})),
            tool(json!({"properties": {"a": {"type": "string", "x-mcp-header": "X"},
                                       "b": {"type": "string", "x-mcp-header": "x"}}})),
        ] {
            assert!(!valid_header_annotations(&bad), "{} was taken", bad.as_str());
        }
    }

    #[test]
    fn values_that_cannot_travel_are_wrapped() {
        assert_eq!(encode("plain value"), "plain value");
        assert_eq!(encode(" edge"), "=?base64?IGVkZ2U=?=");
        assert_eq!(encode("é"), "=?base64?w6k=?=");
        assert_eq!(encode("=?base64?eA==?="), "=?base64?PT9iYXNlNjQ/ZUE9PT89?=");
    }
}
