//! Headers that mirror the body.

use std::collections::HashMap;

use provost_mcp::{
    RawJson, RpcError,
    headers::{Header, HeaderSource, check_params, decode_value, encode_value, param_headers},
};
use serde_json::{Value, json};

struct Given(HashMap<&'static str, &'static str>);

impl HeaderSource for Given {
    fn header(&self, name: &str) -> Header<'_> {
        self.0.get(name).map_or(Header::Absent, |v| Header::One(v))
    }
}

#[test]
fn values_survive_the_wire() {
    for text in ["", "plain text", " leading", "trailing ", "tab\there", "é", "a\nb", "=?base64?x?="] {
        let wire = encode_value(text);
        assert!(wire.bytes().all(|b| (0x20..0x7F).contains(&b)), "{wire}");
        assert_eq!(wire.trim(), wire);
        assert_eq!(decode_value(&wire).as_deref(), Some(text));
    }
    assert_eq!(encode_value("echo"), "echo");
    assert_eq!(decode_value("=?base64?SGVsbG8?="), None, "padding is part of the form");
    assert_eq!(decode_value("=?base64?SGVsbG8=").as_deref(), Some("=?base64?SGVsbG8="));
}

fn schema(properties: Value) -> RawJson {
    RawJson::from(json!({ "type": "object", "properties": properties }))
}

#[test]
fn annotations() {
    let good = schema(json!({
        "region": { "type": "string", "x-mcp-header": "Region" },
        "deep": { "type": "object", "properties": {
            "n": { "type": "integer", "x-mcp-header": "N" } } },
        "plain": { "type": "string", "default": { "x-mcp-header": "instance data" } },
    }));
    let found = param_headers(&good).unwrap();
    let mut names: Vec<_> = found.iter().map(|f| (f.path.join("."), f.header.as_str())).collect();
    names.sort();
    assert_eq!(names, [("deep.n".to_owned(), "N"), ("region".to_owned(), "Region")]);
    let bad = [
        json!({ "a": { "type": "string", "x-mcp-header": "" } }),
        json!({ "a": { "type": "string", "x-mcp-header": "no token" } }),
        json!({ "a": { "type": "string", "x-mcp-header": 1 } }),
        json!({ "a": { "type": "number", "x-mcp-header": "A" } }),
        json!({ "a": { "type": "string", "x-mcp-header": "A" },
                "b": { "type": "string", "x-mcp-header": "a" } }),
        json!({ "a": { "type": "array", "items": { "type": "string", "x-mcp-header": "A" } } }),
    ];
    for properties in bad {
        assert!(param_headers(&schema(properties.clone())).is_err(), "{properties}");
    }
    let root = RawJson::from(json!({ "x-mcp-header": "A", "properties": {} }));
    assert!(param_headers(&root).is_err());
}

#[test]
fn parameters_are_compared() {
    let annotations = param_headers(&schema(json!({
        "region": { "type": "string", "x-mcp-header": "Region" },
        "count": { "type": "integer", "x-mcp-header": "Count" },
    })))
    .unwrap();
    let check = |given: &[(&'static str, &'static str)], arguments: Value| {
        check_params(&Given(given.iter().copied().collect()), &annotations, &RawJson::from(arguments))
            .map_err(|e| e.code)
    };
    let region = "mcp-param-region";
    assert_eq!(check(&[], json!({})), Ok(()));
    assert_eq!(check(&[], json!({ "region": null })), Ok(()));
    assert_eq!(check(&[(region, "eu"), ("mcp-param-count", "3")], json!({ "region": "eu", "count": 3 })), Ok(()));
    assert_eq!(check(&[(region, "=?base64?w6k=?=")], json!({ "region": "é" })), Ok(()));
    let mismatch = Err(RpcError::HEADER_MISMATCH);
    assert_eq!(check(&[], json!({ "region": "eu" })), mismatch);
    assert_eq!(check(&[(region, "eu")], json!({})), mismatch);
    assert_eq!(check(&[(region, "EU")], json!({ "region": "eu" })), mismatch);
    assert_eq!(check(&[("mcp-param-count", "3.0")], json!({ "count": 3 })), mismatch);
}
