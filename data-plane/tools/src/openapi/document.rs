//! An OpenAPI document and what its references lead to.

use serde_json::{Map, Value};

use super::encode::percent_decode;

/// References that lead to references.
const MAX_CHAIN: usize = 16;
/// Bytes of one reference.
const MAX_REFERENCE_BYTES: usize = 1_024;

/// A document; its parts are looked at as they are needed.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    root: &'a Map<String, Value>,
}

impl<'a> Document<'a> {
    /// A document of a version that is known here; else what is wrong with it.
    pub(super) fn new(root: &'a Map<String, Value>) -> Result<Self, String> {
        let version = root.get("openapi").and_then(Value::as_str).unwrap_or_default();
        if !version.starts_with("3.0.") && !version.starts_with("3.1.") {
            return Err("it is no OpenAPI document of version 3.0.x or 3.1.x".to_owned());
        }
        if !root.get("paths").is_some_and(Value::is_object) {
            return Err("it has no `paths`".to_owned());
        }
        Ok(Self { root })
    }

    /// The paths, in order: the order of a file says nothing.
    pub(super) fn paths(&self) -> Vec<(&'a String, &'a Value)> {
        let paths = self.root.get("paths").and_then(Value::as_object);
        let mut paths: Vec<_> = paths.into_iter().flatten().collect();
        paths.sort_by_key(|(path, _)| *path);
        paths
    }

    /// The value, or what it refers to in the end.
    pub(super) fn resolve(&self, value: &'a Value) -> Result<&'a Value, String> {
        let mut found = value;
        for _ in 0..MAX_CHAIN {
            match found.get("$ref").and_then(Value::as_str) {
                None => return Ok(found),
                Some(reference) => found = self.referred(reference)?,
            }
        }
        Err("a reference leads to references without end".to_owned())
    }

    /// What a reference names (RFC 6901, in a fragment).
    pub(super) fn referred(&self, reference: &str) -> Result<&'a Value, String> {
        if reference.len() > MAX_REFERENCE_BYTES {
            return Err("a reference is too long".to_owned());
        }
        let Some(pointer) = reference.strip_prefix("#/") else {
            return Err(format!("it refers to `{}`, which is not in the document", short(reference)));
        };
        let pointer = percent_decode(pointer);
        let (first, rest) = pointer.split_once('/').map_or((pointer.as_str(), None), |(f, r)| (f, Some(r)));
        let first = self.root.get(&first.replace("~1", "/").replace("~0", "~"));
        let found = match rest {
            None => first,
            Some(rest) => first.and_then(|value| value.pointer(&format!("/{rest}"))),
        };
        found.ok_or_else(|| format!("`{}` leads to nothing", short(reference)))
    }
}

/// A text of the document as part of a message.
pub(super) fn short(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CHARS).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_lead_into_the_document_or_nowhere() {
        let root = json!({
            "openapi": "3.1.0", "paths": {"/a/{b}": {"get": {"summary": "x"}}},
            "components": {"schemas": {
                "Plain": {"type": "string"}, "To": {"$ref": "#/components/schemas/Plain"},
                "Round": {"$ref": "#/components/schemas/About"}, "About": {"$ref": "#/components/schemas/Round"},
                "With/slash~": {"type": "integer"}, "Über": {"type": "null"},
            }},
        });
        let document = Document::new(root.as_object().unwrap()).unwrap();
        let leads = |reference: &str| {
            let value = Box::leak(Box::new(json!({ "$ref": reference })));
            document.resolve(value).map(|v| v.to_string())
        };
        for (reference, expect) in [
            ("#/components/schemas/Plain", Some(r#"{"type":"string"}"#)),
            ("#/components/schemas/To", Some(r#"{"type":"string"}"#)),
            ("#/components/schemas/With~1slash~0", Some(r#"{"type":"integer"}"#)),
            ("#/components/schemas/%C3%9Cber", Some(r#"{"type":"null"}"#)),
            ("#/paths/~1a~1%7Bb%7D/get/summary", Some(r#""x""#)),
            ("#/components/schemas/Round", None),
            ("#/components/schemas/None", None),
            ("#/paths/x/9/y", None),
            ("#", None),
            ("", None),
            ("other.yaml#/Plain", None),
            ("https://evil.example/schema.json", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(leads(reference).ok().as_deref(), expect, "{reference}");
        }
        assert!(leads(&format!("#/{}", "x".repeat(5_000))).is_err());
    }

    #[test]
    fn other_formats_are_refused() {
        for (root, good) in [
            (json!({"openapi": "3.0.3", "paths": {}}), true),
            (json!({"openapi": "3.1.1", "paths": {}}), true),
            (json!({"swagger": "2.0", "paths": {}}), false),
            (json!({"openapi": "3.2.0", "paths": {}}), false),
            (json!({"openapi": 3.0, "paths": {}}), false),
            (json!({"openapi": "3.1.0"}), false),
            (json!({"openapi": "3.1.0", "paths": []}), false),
        ] {
            assert_eq!(Document::new(root.as_object().unwrap()).is_ok(), good, "{root}");
        }
    }
}
