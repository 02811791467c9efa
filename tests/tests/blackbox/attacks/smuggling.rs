//! Requests that two readers could read differently: lengths, doubled and folded headers, headers that say
//! something else than the body, and what is passed on to upstreams.

use serde_json::{Value, json};

use super::{
    address, raw, statuses, still_serves,
    upstream::{Answers, Upstream},
    verdict,
};
use crate::harness::{Dev, modern, post_raw, upstream_yaml};

/// A POST of `body` with more header lines; `LENGTH` in them is the body's.
fn request(dev: &Dev, more: &str, body: &str) -> Vec<u8> {
    let more = more.replace("LENGTH", &body.len().to_string());
    format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n\
         {more}\r\n{body}",
        address(dev),
        dev.token()
    )
    .into_bytes()
}

#[test]
fn a_request_has_one_meaning_or_none() {
    let dev = Dev::start(None, &[]);
    let body = modern("tools/list", json!({})).to_string();
    let hidden = format!("GET /readyz HTTP/1.1\r\nhost: {}\r\n\r\n", address(&dev));
    let chunked = |inner: &str| format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let smuggled = format!("0\r\n\r\n{hidden}");
    // What, the lines, the body, and the statuses that may come: never one for what was hidden.
    let table: Vec<(&str, &str, String, &[u16])> = vec![
        ("a good one", "content-length: LENGTH\r\n", body.clone(), &[200]),
        ("chunked", "transfer-encoding: chunked\r\n", chunked(&body), &[200]),
        ("CL and TE", "content-length: 4\r\ntransfer-encoding: chunked\r\n", chunked(&body), &[200, 400]),
        (
            "TE and CL, a request behind the last chunk",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            smuggled.clone(),
            &[400],
        ),
        ("two lengths", "content-length: LENGTH\r\ncontent-length: 4\r\n", body.clone(), &[400]),
        ("a list of lengths", "content-length: 4, 5\r\n", body.clone(), &[400]),
        ("a length with a sign", "content-length: +4\r\n", body.clone(), &[400]),
        ("a length in hexadecimal", "content-length: 0x4\r\n", body.clone(), &[400]),
        ("an unknown coding", "transfer-encoding: identity\r\n", body.clone(), &[400, 501]),
        ("chunked twice", "transfer-encoding: chunked, chunked\r\n", chunked(&body), &[200, 400]),
        ("TE with a space before the colon", "transfer-encoding : chunked\r\n", chunked(&body), &[400]),
        ("a folded header", "content-length: LENGTH\r\nx-a: b\r\n c\r\n", body.clone(), &[400]),
        ("a bare CR in a value", "content-length: LENGTH\r\nx-a: b\rmcp-name: c\r\n", body.clone(), &[400]),
        ("NUL in a value", "content-length: LENGTH\r\nx-a: b\0c\r\n", body.clone(), &[400]),
        ("two hosts", "host: evil.example\r\ncontent-length: LENGTH\r\n", body.clone(), &[400, 403]),
        ("two tokens", "authorization: Bearer other\r\ncontent-length: LENGTH\r\n", body.clone(), &[400, 401]),
        ("two methods", "mcp-method: tools/call\r\ncontent-length: LENGTH\r\n", body.clone(), &[400]),
        (
            "a chunk whose size is no number",
            "transfer-encoding: chunked\r\n",
            format!("zz\r\n{body}\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a chunk size beyond every number",
            "transfer-encoding: chunked\r\n",
            format!("ffffffffffffffff1\r\n{body}"),
            &[400],
        ),
    ];
    for (case, more, body, allowed) in table {
        let said = raw(&dev, &request(&dev, more, &body));
        let got = statuses(&said);
        verdict("smuggling", case, &format!("{got:?}"));
        // Some are refused by closing; an answer to the hidden request would be a second status. A length beside
        // chunks may be overridden by them if the connection is closed then (RFC 9112, 6.1).
        assert!(got.len() <= 1 && got.iter().all(|s| allowed.contains(s)), "{case}: {said}");
        assert!(case != "a good one" || got == [200], "{said}");
    }
    still_serves(&dev);
}

/// What it is, headers, and the status.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

#[test]
fn headers_say_what_the_body_says() {
    let dev = Dev::start(None, &[]);
    let call = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "hi" } }));
    let table: [Case; 9] = [
        ("they agree", &[("mcp-method", "tools/call"), ("mcp-name", "echo.echo")], 200),
        ("another method", &[("mcp-method", "tools/list"), ("mcp-name", "echo.echo")], 400),
        ("another tool", &[("mcp-method", "tools/call"), ("mcp-name", "sql.query")], 400),
        ("the tool in Base64", &[("mcp-method", "tools/call"), ("mcp-name", "=?base64?ZWNoby5lY2hv?=")], 200),
        ("another tool in Base64", &[("mcp-method", "tools/call"), ("mcp-name", "=?base64?c3FsLnF1ZXJ5?=")], 400),
        ("no Base64 at all", &[("mcp-method", "tools/call"), ("mcp-name", "=?base64?***?=")], 400),
        ("other letters", &[("mcp-method", "TOOLS/CALL"), ("mcp-name", "echo.echo")], 400),
        ("two names", &[("mcp-method", "tools/call"), ("mcp-name", "echo.echo"), ("mcp-name", "sql.query")], 400),
        ("no method", &[("mcp-name", "echo.echo")], 400),
    ];
    for (case, more, expected) in table {
        let mut headers = vec![
            ("authorization".to_owned(), format!("Bearer {}", dev.token())),
            ("mcp-protocol-version".to_owned(), "2026-07-28".to_owned()),
        ];
        headers.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let (status, answer) = post_raw(dev.mcp(), &headers, call.to_string().into_bytes());
        verdict("mismatch", case, &format!("{status} {}", answer["error"]["code"]));
        assert_eq!(status, expected, "{case}: {answer}");
    }
}

#[test]
fn nothing_of_a_call_becomes_a_header_line_upstream() {
    let upstream = Upstream::start(Answers::Echo);
    let dev = Dev::start(Some(&upstream_yaml(&upstream.url)), &[]);
    for name in ["t\r\nx-evil: 1", "t\nx-evil: 1", "t\0", "t\u{85}x-evil: 1", "t x-evil: 1", "\u{202e}t"] {
        let body = modern("tools/call", json!({ "name": format!("up.{name}"), "arguments": {} }));
        let headers = [
            ("authorization".to_owned(), format!("Bearer {}", dev.token())),
            ("mcp-protocol-version".to_owned(), "2026-07-28".to_owned()),
            ("mcp-method".to_owned(), "tools/call".to_owned()),
            ("mcp-name".to_owned(), format!("=?base64?{}?=", base64(&format!("up.{name}")))),
        ];
        let (status, answer) = post_raw(dev.mcp(), &headers, body.to_string().into_bytes());
        verdict("forwarded", &format!("{name:?}"), &format!("{status} {}", answer["error"]["code"]));
        assert!(answer["error"].is_object(), "{name:?}: {answer}");
    }
    // Headers of the caller that an upstream could believe are not passed on.
    let body = modern("tools/call", json!({ "name": "up.t", "arguments": {} }));
    let mut headers = vec![
        ("authorization".to_owned(), format!("Bearer {}", dev.token())),
        ("mcp-protocol-version".to_owned(), "2026-07-28".to_owned()),
        ("mcp-method".to_owned(), "tools/call".to_owned()),
        ("mcp-name".to_owned(), "up.t".to_owned()),
    ];
    for name in ["x-evil", "x-forwarded-for", "cookie", "proxy-authorization", "x-key"] {
        headers.push((name.to_owned(), "from-the-caller".to_owned()));
    }
    let (_, answer) = post_raw(dev.mcp(), &headers, body.to_string().into_bytes());
    assert!(answer["result"].is_object(), "{answer}");
    let seen = upstream.seen().concat();
    for hidden in ["from-the-caller", "x-evil", dev.token()] {
        verdict("forwarded", if hidden == dev.token() { "the caller's token" } else { hidden }, "not seen upstream");
        assert!(!seen.contains(hidden), "{hidden}: {seen}");
    }
    let _: Value = answer;
}

fn base64(text: &str) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(text)
}
