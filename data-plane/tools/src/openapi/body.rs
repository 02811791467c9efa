//! The body of a request.

use bytes::Bytes;
use http::HeaderValue;
use provost_mcp::RawJson;
use serde_json::Value;

use super::{
    document::{Document, short},
    encode::{percent, scalar},
};

/// How a body is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// As JSON, of this media type.
    Json(String),
    /// As `application/x-www-form-urlencoded`.
    Form,
}

/// A body as the document describes it.
pub(super) struct Described<'a> {
    pub(super) body: Body,
    pub(super) is_required: bool,
    /// `None`: anything.
    pub(super) schema: Option<&'a Value>,
    pub(super) description: &'a str,
}

/// Whether a media type is JSON (RFC 8259, RFC 6839).
pub(super) fn is_json(kind: &str) -> bool {
    let essence = essence(kind);
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A media type without its parameters, in lower case.
pub(super) fn essence(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads an operation's body; `None`: it takes none that could be written. `Err`: it needs one that cannot be.
pub(super) fn read<'a>(document: &Document<'a>, value: &'a Value) -> Result<Option<Described<'a>>, String> {
    let value = document.resolve(value)?;
    let is_required = value.get("required").and_then(Value::as_bool).unwrap_or(false);
    let description = value.get("description").and_then(Value::as_str).unwrap_or_default();
    let Some(content) = value.get("content").and_then(Value::as_object).filter(|content| !content.is_empty()) else {
        return Ok(None);
    };
    let header = |kind: &str| HeaderValue::from_str(kind).is_ok();
    // The plain type first, if there are several of JSON.
    let json = content.get_key_value("application/json").or_else(|| content.iter().find(|(kind, _)| is_json(kind)));
    let json = json.filter(|(kind, _)| header(kind)).map(|(kind, media)| (Body::Json(kind.clone()), media));
    let form = content.iter().find(|(kind, _)| essence(kind) == "application/x-www-form-urlencoded");
    match json.or_else(|| form.map(|(_, media)| (Body::Form, media))) {
        Some((body, media)) => Ok(Some(Described { body, is_required, schema: media.get("schema"), description })),
        None if is_required => {
            let kinds: Vec<String> = content.keys().take(3).map(|kind| short(kind)).collect();
            Err(format!("its body is {}, and only JSON and forms are written", kinds.join(" or ")))
        }
        None => Ok(None),
    }
}

/// A call's body and its media type.
pub(super) fn write(body: &Body, value: &RawJson) -> Result<(HeaderValue, Bytes), &'static str> {
    match body {
        // As the caller wrote it: numbers keep their digits.
        Body::Json(kind) => {
            let kind = HeaderValue::from_str(kind).map_err(|_| "its media type cannot be sent")?;
            Ok((kind, value.bytes()))
        }
        Body::Form => {
            let parsed: Value = value.parse().map_err(|_| "it is no JSON")?;
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            Ok((kind, Bytes::from(form(&parsed)?)))
        }
    }
}

/// A list repeats its name; an object within is JSON (OpenAPI 3.1, 4.8.15.1).
fn form(value: &Value) -> Result<String, &'static str> {
    let members = value.as_object().ok_or("a form is an object")?;
    let mut pairs = Vec::new();
    for (name, value) in members {
        let values = match value {
            Value::Array(items) => items.iter().collect(),
            one => vec![one],
        };
        for value in values {
            let text = match value {
                Value::Array(_) | Value::Object(_) => Some(value.to_string()),
                plain => scalar(plain)?,
            };
            pairs.extend(text.map(|text| format!("{}={}", percent(name), percent(&text))));
        }
    }
    Ok(pairs.join("&"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_preferred_and_others_are_said() {
        let root = json!({"openapi": "3.1.0", "paths": {}});
        let document = Document::new(root.as_object().unwrap()).unwrap();
        let (json_body, form, xml) = ("application/json", "application/x-www-form-urlencoded", "application/xml");
        let kinds = |kinds: &[&str]| {
            let content: serde_json::Map<String, Value> = kinds.iter().map(|k| ((*k).to_owned(), json!({}))).collect();
            Box::leak(Box::new(json!({"required": true, "content": content})))
        };
        let found = |names: &[&str]| read(&document, kinds(names)).map(|found| found.map(|d| d.body));
        let of_json = |kind: &str| Ok(Some(Body::Json(kind.to_owned())));
        assert_eq!(found(&[xml, "application/problem+json", json_body, form]), of_json(json_body));
        assert_eq!(found(&[form, "application/merge-patch+json"]), of_json("application/merge-patch+json"));
        assert_eq!(found(&[form, xml]), Ok(Some(Body::Form)));
        assert_eq!(found(&["Application/JSON; charset=utf-8"]), of_json("Application/JSON; charset=utf-8"));
        assert!(found(&[xml, "multipart/form-data"]).unwrap_err().contains("multipart/form-data"));
        assert_eq!(found(&[]), Ok(None));
        let optional = json!({"content": {"text/csv": {}}});
        assert!(read(&document, &optional).unwrap().is_none());
    }

    #[test]
    fn bodies_are_written() {
        let raw = RawJson::from_checked(Bytes::from_static(br#"{"n":1.50,"big":12345678901234567890123}"#));
        let (kind, bytes) = write(&Body::Json("application/json".to_owned()), &raw).unwrap();
        assert_eq!((kind.to_str().unwrap(), &bytes), ("application/json", &raw.bytes()));
        let value = json!({"a b": "x&y=z", "l": [1, "2"], "n": null, "o": {"k": [1]}});
        let (_, bytes) = write(&Body::Form, &RawJson::from(value)).unwrap();
        assert_eq!(bytes, "a%20b=x%26y%3Dz&l=1&l=2&o=%7B%22k%22%3A%5B1%5D%7D");
        assert!(write(&Body::Form, &RawJson::from(json!([1]))).is_err());
    }
}
