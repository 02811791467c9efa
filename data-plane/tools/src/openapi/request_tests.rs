#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::{
    super::{
        catalogue::{Catalogue, Filter},
        operation::Given,
    },
    *,
};
use crate::egress::EgressRule;

const SERVER: &str = "https://api.example/v1/";

/// The request of the document's only operation, as text: target, headers, body.
fn request(path: &str, operation: Value, arguments: Value) -> Result<String, String> {
    request_to(SERVER, path, operation, arguments)
}

fn request_to(server: &str, path: &str, operation: Value, arguments: Value) -> Result<String, String> {
    let document = json!({"openapi": "3.1.0", "paths": {path: {"post": operation}}});
    let catalogue = Catalogue::read(document.as_object().unwrap(), &Filter::default(), &Given::default(), 10).unwrap();
    assert!(catalogue.left_out.is_empty(), "{:?}", catalogue.left_out);
    let call = catalogue.call(&catalogue.definitions[0].name).unwrap();
    let server = EgressRule::public().check(server).unwrap();
    let arguments = RawObject::parse(&RawJson::from(arguments)).unwrap();
    let made = prepare(call, &arguments, &server, &["api_key".to_owned()]).map_err(|e| e.to_string())?;
    let url = made.url.as_url();
    assert_eq!(url.origin().ascii_serialization(), "https://api.example");
    let mut text = url.path().to_owned();
    text.extend(url.query().map(|q| format!("?{q}")));
    for (name, value) in &made.headers {
        text.push_str(&format!(" {name}={}", value.to_str().unwrap()));
    }
    text.extend(made.body.map(|body| format!(" {}", String::from_utf8(body.to_vec()).unwrap())));
    Ok(text)
}

fn in_path(value: Value) -> Result<String, String> {
    let operation = json!({"parameters": [{"name": "id", "in": "path", "required": true}]});
    request("/t/{id}/c", operation, json!({"id": value}))
}

#[test]
fn a_path_parameter_stays_in_its_segment() {
    for (value, expect) in [
        (json!("abc"), "/v1/t/abc/c"),
        (json!(7), "/v1/t/7/c"),
        (json!(true), "/v1/t/true/c"),
        (json!("a b/c?d#e;f%2F"), "/v1/t/a%20b%2Fc%3Fd%23e%3Bf%252F/c"),
        (json!("..."), "/v1/t/.../c"),
        (json!(".hidden"), "/v1/t/.hidden/c"),
        (json!("%2e%2e"), "/v1/t/%252e%252e/c"),
        (json!("ü@:!"), "/v1/t/%C3%BC%40%3A%21/c"),
        (json!(["a", "b,c"]), "/v1/t/a,b%2Cc/c"),
        (json!("feature/x"), "/v1/t/feature%2Fx/c"),
    ] {
        assert_eq!(in_path(value.clone()).as_deref(), Ok(expect), "{value}");
    }
    for value in [
        json!(".."),
        json!("."),
        json!("../admin"),
        json!("a/../../admin"),
        json!("a/.."),
        json!("..\\admin"),
        json!(""),
        json!(null),
        json!([]),
        json!("a\r\nb"),
        json!("a\0b"),
        json!({"a": {"b": 1}}),
    ] {
        let fault = in_path(value.clone()).unwrap_err();
        assert!(fault.contains("`id` cannot be sent"), "{value}: {fault}");
    }
}

#[test]
fn parts_of_a_segment_make_no_dots_together() {
    let parameters = json!({"parameters": [{"name": "a", "in": "path"}, {"name": "b", "in": "path"}]});
    let with = |path: &str, a: &str, b: &str| request(path, parameters.clone(), json!({"a": a, "b": b}));
    assert_eq!(with("/x/{a}.{b}", "1", "json").as_deref(), Ok("/v1/x/1.json"));
    assert_eq!(with("/x/{a}{b}/y", "%2e", "%2e").as_deref(), Ok("/v1/x/%252e%252e/y"));
    assert!(with("/x/{a}{b}/y", ".", "x").unwrap_err().contains("segment"));
}

#[test]
fn a_path_of_the_document_is_kept() {
    for (server, path, expect) in [
        ("https://api.example", "/a", "/a"),
        ("https://api.example/", "/", "/"),
        ("https://api.example/v1", "/a b/ü/%41|", "/v1/a%20b/%C3%BC/%41%7C"),
        ("https://api.example/v1//", "/a:b@c", "/v1/a:b@c"),
    ] {
        assert_eq!(request_to(server, path, json!({}), json!({})).as_deref(), Ok(expect), "{path}");
    }
}

#[test]
fn the_rest_is_where_the_document_says() {
    let operation = json!({
        "parameters": [
            {"name": "tag", "in": "query"}, {"name": "page", "in": "query", "style": "deepObject"},
            {"name": "X-Trace", "in": "header"}, {"name": "session", "in": "cookie"}, {"name": "lang", "in": "cookie"},
        ],
        "requestBody": {"content": {"application/json": {}}},
    });
    let arguments = json!({
        "tag": ["a&b", "c"], "page": {"size": 5}, "X-Trace": "t 1", "session": "a; b=c", "lang": "de",
        "body": {"n": 1},
    });
    let expect = "/v1/a?tag=a%26b&tag=c&page%5Bsize%5D=5 x-trace=t 1 cookie=session=a%3B%20b%3Dc; lang=de \
                  content-type=application/json {\"n\":1}";
    assert_eq!(request("/a", operation.clone(), arguments).as_deref(), Ok(expect));
    // What is not given, or is null, is not sent.
    assert_eq!(request("/a", operation, json!({"tag": null, "X-Trace": null})).as_deref(), Ok("/v1/a"));
}

#[test]
fn numbers_keep_their_digits() {
    let operation =
        json!({"parameters": [{"name": "n", "in": "query"}], "requestBody": {"content": {"application/json": {}}}});
    let document = json!({"openapi": "3.1.0", "paths": {"/a": {"post": operation}}});
    let catalogue = Catalogue::read(document.as_object().unwrap(), &Filter::default(), &Given::default(), 10).unwrap();
    let raw = RawJson::from_checked(r#"{"n": 123456789012345678901234567890, "body": {"x": 1.10}}"#.into());
    let server = EgressRule::public().check(SERVER).unwrap();
    let call = catalogue.call("post_a").unwrap();
    let made = prepare(call, &RawObject::parse(&raw).unwrap(), &server, &[]).unwrap();
    assert_eq!(made.url.as_url().query(), Some("n=123456789012345678901234567890"));
    assert_eq!(made.body.unwrap(), r#"{"x": 1.10}"#);
}

#[test]
fn nothing_is_put_into_headers_or_besides_parameters() {
    let header = json!({"parameters": [{"name": "X-Trace", "in": "header"}]});
    for value in ["a\r\nx-admin: 1", "a\nb", "a\0", "ü"] {
        let fault = request("/a", header.clone(), json!({"X-Trace": value})).unwrap_err();
        assert!(fault.contains("headers cannot carry") && !fault.contains("admin"), "{fault}");
    }
    // The members of an object become parameters, but not the plugin's own.
    let free = json!({"parameters": [{"name": "filter", "in": "query", "schema": {"type": "object"}}]});
    let with = |key: &str| request("/a", free.clone(), json!({"filter": {key: "x"}}));
    assert_eq!(with("state").as_deref(), Ok("/v1/a?state=x"));
    assert!(with("api_key").unwrap_err().contains("that the plugin gives"));
    let long = json!({"parameters": [{"name": "q", "in": "query"}]});
    assert!(request("/a", long, json!({"q": "x".repeat(20_000)})).unwrap_err().contains("too long"));
}

proptest::proptest! {
    /// Whatever a caller gives: the path has the segments that it has, and the segment is the value.
    #[test]
    fn no_value_leaves_its_segment(value in "\\PC{0,12}|[a./%\\\\2eEfF?#;]{0,12}") {
        if let Ok(target) = in_path(json!(value)) {
            let segment = target.strip_prefix("/v1/t/").and_then(|rest| rest.strip_suffix("/c"));
            proptest::prop_assert_eq!(segment.map(percent_decode), Some(value));
            proptest::prop_assert_eq!(target.matches('/').count(), 4);
        }
    }
}
