#![allow(clippy::unwrap_used)]

use http::HeaderValue;

use super::*;

fn answer(status: u16, kind: &str, body: &[u8]) -> Answer {
    let mut headers = HeaderMap::new();
    if !kind.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
    }
    Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::copy_from_slice(body) }
}

fn redactor() -> Redactor {
    Redactor::new(["s3cret-value"])
}

fn result(kind: &str, body: &[u8]) -> Value {
    let content = answer(200, kind, body).read(&redactor(), 10_000).unwrap().unwrap();
    content.into_result("t", StatusCode::OK, None).parse().unwrap()
}

#[test]
fn json_is_structured_and_text_is_text() {
    for (kind, body, expect) in [
        ("application/json", r#"{"a": 1.50}"#, json!({"a": 1.5})),
        ("application/hal+json; charset=utf-8", "[1, 2]", json!({"items": [1, 2]})),
        ("application/json", "3", json!({"value": 3})),
        ("application/json", "null", json!({"value": null})),
    ] {
        let result = result(kind, body.as_bytes());
        assert_eq!((&result["structuredContent"], &result["content"][0]["text"]), (&expect, &json!(body)), "{body}");
    }
    for (kind, body) in [("text/plain", "a\nb"), ("text/html", "<p>"), ("application/xml", "<a/>"), ("", "x")] {
        let result = result(kind, body.as_bytes());
        assert_eq!(
            (&result["content"][0], result.get("structuredContent")),
            (&json!({"type": "text", "text": body}), None)
        );
    }
    assert_eq!(result("", b"")["content"][0]["text"], "HTTP 200, without content");
}

#[test]
fn what_is_no_text_comes_in_base64() {
    let image = result("image/png", &[0x89, 0x50]);
    assert_eq!(image["content"][0], json!({"type": "image", "mimeType": "image/png", "data": "iVA="}));
    let blob = result("application/pdf", b"%PDF");
    let resource = json!({"uri": "answer:t", "mimeType": "application/pdf", "blob": "JVBERg=="});
    assert_eq!(blob["content"][0], json!({"type": "resource", "resource": resource}));
    // Text that is none.
    assert_eq!(result("text/plain", &[0xff, 0xfe])["content"][0]["resource"]["mimeType"], "text/plain");
}

#[test]
fn credentials_do_not_come_back() {
    let said = |kind: &str, body: &str| result(kind, body.as_bytes()).to_string();
    for (kind, body) in [
        ("application/json", r#"{"key": "s3cret-value"}"#),
        ("application/json", r#"{"key": "s3cret\u002dvalue"}"#),
        ("text/plain", "your key is s3cret-value"),
        ("text/plain; x=s3cret-value", "a"),
    ] {
        assert!(!said(kind, body).contains("s3cret"), "{kind} {body}");
    }
    let hidden = answer(200, "image/png", b"\xff s3cret-value \xff").read(&redactor(), 10_000);
    assert!(matches!(hidden, Err(UpstreamError::Garbage(_))));
    let refused = answer(404, "application/json", br#"{"title": "no s3cret-value"}"#).read(&redactor(), 10_000);
    assert!(!refused.unwrap().unwrap_err().contains("s3cret"));
    let failed = answer(500, "text/plain", b"no s3cret-value").read(&redactor(), 10_000).unwrap_err();
    assert!(!failed.to_string().contains("s3cret"), "{failed}");
}

#[test]
fn a_refusal_says_why() {
    let problem = br#"{"type": "about:blank", "title": "Out of stock", "detail": "None left.", "sku": "a-1"}"#;
    let text = answer(409, "application/problem+json", problem).read(&redactor(), 10_000).unwrap().unwrap_err();
    assert!(text.starts_with("HTTP 409 Conflict. Out of stock: None left.\n{"), "{text}");
    assert!(text.contains("\"sku\": \"a-1\""), "{text}");
    let plain =
        |kind: &str, body: &str| answer(404, kind, body.as_bytes()).read(&redactor(), 10_000).unwrap().unwrap_err();
    assert_eq!(plain("text/plain", "no such ticket"), "HTTP 404 Not Found\nno such ticket");
    assert_eq!(plain("text/html", "<h1>404</h1>"), "HTTP 404 Not Found");
    assert!(plain("text/plain", &"x".repeat(100_000)).len() <= MAX_PROBLEM_CHARS);
}

#[test]
fn what_speaks_of_the_service_is_an_error_of_it() {
    let failed = |status: u16, kind: &str, body: &str| {
        answer(status, kind, body.as_bytes()).read(&redactor(), 10_000).unwrap_err()
    };
    assert_eq!(failed(401, "", ""), UpstreamError::Unauthorized(401));
    assert_eq!(failed(403, "", ""), UpstreamError::Unauthorized(403));
    let problem = failed(503, "application/problem+json", r#"{"title": "Down", "detail": "Until 9."}"#);
    assert_eq!(problem, UpstreamError::Http { status: 503, body: "Down: Until 9.".to_owned() });
    assert_eq!(failed(500, "text/plain", "a\nb"), UpstreamError::Http { status: 500, body: "a b".to_owned() });
    assert!(matches!(failed(302, "", ""), UpstreamError::Http { status: 302, .. }));
    assert!(matches!(failed(200, "application/json", "{"), UpstreamError::Garbage(_)));
    assert!(matches!(failed(200, "application/json", r#"{"a":1,"a":2}"#), UpstreamError::Garbage(_)));
    let deep = format!("{}{}", "[".repeat(110), "]".repeat(110));
    assert!(matches!(failed(200, "application/json", &deep), UpstreamError::Garbage(_)));
    assert!(matches!(failed(429, "", ""), UpstreamError::Crowded { retry_after_ms: 1_000, .. }));
}

#[test]
fn a_busy_service_says_when_to_come_again() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (text, seconds) in [
        ("120", 120),
        ("0", 0),
        ("999999999", 3_600),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("soon", 1),
        ("", 1),
        ("-5", 1),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        assert_eq!(retry_after(&headers, now), Duration::from_secs(seconds), "{text}");
    }
}
