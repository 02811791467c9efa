//! One parameter of an operation.

use serde_json::Value;

use super::document::{Document, short};

/// Where a parameter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

/// How its value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Simple,
    Form,
    Space,
    Pipe,
    Deep,
    /// As JSON: it is described by `content`.
    Json,
}

/// A parameter as a call fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// The tool's argument.
    pub(super) argument: String,
    /// The name on the wire.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) style: Style,
    pub(super) explode: bool,
    pub(super) is_required: bool,
}

/// A parameter as the document describes it.
pub(super) struct Described<'a> {
    /// Its argument is its name, still.
    pub(super) parameter: Parameter,
    /// `None`: anything.
    pub(super) schema: Option<&'a Value>,
    pub(super) description: &'a str,
}

/// Headers that are no parameters: the document's (OpenAPI 3.1, 4.8.12.2) and those that say how the message travels.
const NOT_HEADERS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

impl Place {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
        }
    }
}

/// Whether a header of this name is never a caller's.
pub(super) fn is_reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NOT_HEADERS.contains(&name.as_str()) || name.starts_with("x-forwarded-") || name == "forwarded"
}

/// Reads a parameter. `Err`: why the operation cannot be called with it.
pub(super) fn read<'a>(document: &Document<'a>, value: &'a Value) -> Result<Described<'a>, String> {
    let value = document.resolve(value)?;
    let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
    let place = match value.get("in").and_then(Value::as_str) {
        Some("path") => Place::Path,
        Some("query") => Place::Query,
        Some("header") => Place::Header,
        Some("cookie") => Place::Cookie,
        _ => return Err(format!("the parameter `{}` is in no place that is known", short(name))),
    };
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let is_name = match place {
        Place::Header | Place::Cookie => !name.is_empty() && name.bytes().all(is_token),
        Place::Path | Place::Query => !name.is_empty() && !name.chars().any(char::is_control),
    };
    if !is_name {
        return Err(format!("`{}` is no name of a {} parameter", short(name), place.as_str()));
    }
    let content = value.get("content").and_then(Value::as_object).and_then(|content| content.iter().next());
    let (style, schema) = match content {
        Some((kind, media)) if super::body::is_json(kind) => (Style::Json, media.get("schema")),
        Some((kind, _)) => return Err(format!("the parameter `{}` is of type {}", short(name), short(kind))),
        None => (style(place, value, name)?, value.get("schema")),
    };
    let explode = value.get("explode").and_then(Value::as_bool).unwrap_or(style == Style::Form);
    let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
    let parameter = Parameter {
        argument: name.to_owned(),
        name: name.to_owned(),
        place,
        style,
        explode,
        // A path without it would be another path.
        is_required: place == Place::Path || flag("required"),
    };
    let description = value.get("description").and_then(Value::as_str).unwrap_or_default();
    Ok(Described { parameter, schema, description })
}

fn style(place: Place, value: &Value, name: &str) -> Result<Style, String> {
    match (place, value.get("style").and_then(Value::as_str)) {
        (Place::Path | Place::Header, None | Some("simple")) => Ok(Style::Simple),
        (Place::Query | Place::Cookie, None | Some("form")) => Ok(Style::Form),
        (Place::Query, Some("spaceDelimited")) => Ok(Style::Space),
        (Place::Query, Some("pipeDelimited")) => Ok(Style::Pipe),
        (Place::Query, Some("deepObject")) => Ok(Style::Deep),
        (_, Some(other)) => Err(format!("the parameter `{}` has the style {}", short(name), short(other))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_those_of_the_specification() {
        let root = json!({"openapi": "3.1.0", "paths": {}, "components": {"parameters": {
            "Page": {"name": "page", "in": "query", "schema": {"type": "integer"}}}}});
        let document = Document::new(root.as_object().unwrap()).unwrap();
        let read = |value: Value| {
            let value = Box::leak(Box::new(value));
            read(&document, value).map(|d| (d.parameter.style, d.parameter.explode, d.parameter.is_required))
        };
        for (value, expect) in [
            (json!({"name": "id", "in": "path"}), Some((Style::Simple, false, true))),
            (json!({"name": "q", "in": "query"}), Some((Style::Form, true, false))),
            (json!({"name": "q", "in": "query", "explode": false, "required": true}), Some((Style::Form, false, true))),
            (
                json!({"name": "q", "in": "query", "style": "deepObject", "explode": true}),
                Some((Style::Deep, true, false)),
            ),
            (json!({"name": "q", "in": "query", "style": "pipeDelimited"}), Some((Style::Pipe, false, false))),
            (json!({"name": "x-a", "in": "header"}), Some((Style::Simple, false, false))),
            (json!({"name": "c", "in": "cookie"}), Some((Style::Form, true, false))),
            (
                json!({"name": "j", "in": "query", "content": {"application/json": {}}}),
                Some((Style::Json, false, false)),
            ),
            (json!({"$ref": "#/components/parameters/Page"}), Some((Style::Form, true, false))),
            (json!({"name": "id", "in": "path", "style": "matrix"}), None),
            (json!({"name": "id", "in": "path", "style": "label"}), None),
            (json!({"name": "b", "in": "body"}), None),
            (json!({"name": "a\r\nb", "in": "header"}), None),
            (json!({"name": "a b", "in": "header"}), None),
            (json!({"name": "a;b", "in": "cookie"}), None),
            (json!({"name": "", "in": "query"}), None),
            (json!({"name": "x", "in": "query", "content": {"text/csv": {}}}), None),
            (json!({"in": "query"}), None),
            (json!(3), None),
        ] {
            assert_eq!(read(value.clone()).ok(), expect, "{value}");
        }
    }

    #[test]
    fn some_headers_are_nobodys() {
        for name in ["Host", "content-LENGTH", "Authorization", "cookie", "X-Forwarded-For", "Forwarded", "TE"] {
            assert!(is_reserved_header(name), "{name}");
        }
        assert!(!is_reserved_header("x-request-id") && !is_reserved_header("if-match"));
    }
}
