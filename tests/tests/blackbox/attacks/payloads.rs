//! Bodies that are too large, too deep, doubled or broken, from clients and from upstreams.

use std::io::Write;

use serde_json::json;

use super::{
    address, raw, read_some, socket, statuses, still_serves,
    upstream::{Answers, Upstream},
    verdict,
};
use crate::harness::{Dev, call_tool, modern, post_raw, upstream_yaml};

#[test]
fn what_clients_send_is_bounded_and_read_one_way() {
    let dev = Dev::start(None, &[]);
    let good = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "hi" } })).to_string();
    let at = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let nested = |open: &str, close: &str, depth: usize| {
        good.replacen("\"hi\"", &format!("{}1{}", open.repeat(depth), close.repeat(depth)), 1).into_bytes()
    };
    let many_keys: String = (0..200_000).map(|i| format!("\"k{i}\":1,")).collect();
    let table: Vec<(&str, Vec<u8>, u16)> = vec![
        ("a good one", good.clone().into_bytes(), 200),
        ("a key twice", at("\"text\":\"hi\"", "\"text\":\"hi\",\"text\":\"ho\""), 400),
        ("a key twice, once escaped", at("\"text\":\"hi\"", "\"text\":\"hi\",\"te\\u0078t\":\"ho\""), 400),
        ("a method twice", at("\"method\":", "\"method\":\"tools/list\",\"method\":"), 400),
        ("an id twice", at("\"id\":1", "\"id\":1,\"id\":2"), 400),
        ("a tool's name twice", at("\"name\":\"echo.echo\"", "\"name\":\"echo.echo\",\"name\":\"sql.query\""), 400),
        ("arrays 10,000 deep", nested("[", "]", 10_000), 400),
        ("objects 10,000 deep", nested("{\"a\":", "}", 10_000), 400),
        ("not UTF-8", good.clone().into_bytes().iter().map(|b| if *b == b'i' { 0xff } else { *b }).collect(), 400),
        (
            "UTF-8 that is too long for its character",
            at("hi", "\u{1}").iter().flat_map(|b| if *b == 1 { vec![0xc0, 0xaf] } else { vec![*b] }).collect(),
            400,
        ),
        ("a control character in a string", at("hi", "h\u{1}i"), 400),
        ("half a surrogate pair", at("hi", "\\ud800"), 200),
        ("a number beyond every number", at("\"id\":1", "\"id\":1e999999"), 400),
        ("two messages", format!("{good}{good}").into_bytes(), 400),
        ("a byte order mark", [b"\xef\xbb\xbf".as_slice(), good.as_bytes()].concat(), 400),
        ("200,000 keys", at("\"text\":", &format!("{many_keys}\"text\":")), 400),
        ("just over 4 MiB", at("hi", &"x".repeat(4 << 20)), 413),
        ("nothing", Vec::new(), 400),
    ];
    for (case, body, expected) in table {
        let headers = [
            ("authorization".to_owned(), format!("Bearer {}", dev.token())),
            ("mcp-protocol-version".to_owned(), "2026-07-28".to_owned()),
            ("mcp-method".to_owned(), "tools/call".to_owned()),
            ("mcp-name".to_owned(), "echo.echo".to_owned()),
        ];
        let size = body.len();
        let (status, answer) = post_raw(dev.mcp(), &headers, body);
        let code = answer["error"]["data"]["code"].as_str().unwrap_or("").to_owned();
        verdict("body", case, &format!("{status} {} {code} ({size} bytes)", answer["error"]["code"]));
        let fine = status == expected || (case == "200,000 keys" && [200, 400, 413].contains(&status));
        let fine = fine || (case == "a number beyond every number" && [200, 400].contains(&status));
        let fine = fine || (case == "half a surrogate pair" && [200, 400].contains(&status));
        assert!(fine, "{case}: {status} {answer}");
    }
    still_serves(&dev);
}

#[test]
fn headers_and_lengths_are_bounded() {
    let dev = Dev::start(None, &[]);
    let start = format!("POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n", address(&dev), dev.token());
    let lines = |count: usize| (0..count).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    let table: Vec<(&str, String, &[u16])> = vec![
        ("5,000 headers", format!("{start}{}\r\n", lines(5_000)), &[431, 400]),
        ("a header of 2 MiB", format!("{start}x: {}\r\n\r\n", "y".repeat(2 << 20)), &[431, 400]),
        ("a path of 2 MiB", format!("POST /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(2 << 20)), &[414, 431, 400]),
        (
            "a length of 2^60, and no body",
            format!("{start}content-length: 1152921504606846976\r\n\r\n"),
            &[413, 415, 400],
        ),
        (
            "a compressed body",
            format!("{start}content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\u{8}{{}}"),
            &[400, 415],
        ),
        ("an unknown method", start.replacen("POST", "BREW", 1) + "\r\n", &[404, 405, 415, 400]),
        ("another protocol", "SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(), &[400]),
    ];
    for (case, bytes, allowed) in table {
        let got = statuses(&raw(&dev, bytes.as_bytes()));
        verdict("headers", case, &format!("{got:?}"));
        // A client that is still writing may find the connection closed instead of the answer.
        assert!(got.len() <= 1 && got.iter().all(|s| allowed.contains(s)), "{case}: {got:?}");
    }
    // Too long by what it says itself: refused before any of it has come, whether the client waits for leave or not.
    for more in ["", "expect: 100-continue\r\n"] {
        let head = format!("{start}content-type: application/json\r\n{more}content-length: 5000000\r\n\r\n");
        let got = statuses(&raw(&dev, head.as_bytes()));
        verdict("headers", &format!("a length beyond the bound {more}"), &format!("{got:?}"));
        assert_eq!(got, [413], "{more}");
    }
    // HTTP/2 with a frame that is longer than was agreed, and with settings that make no sense.
    for (case, bytes) in [
        ("an HTTP/2 frame of 16 MiB", b"\xff\xff\xff\x00\x00\x00\x00\x00\x01".as_slice()),
        ("HTTP/2 settings of 5 bytes", b"\x00\x00\x05\x04\x00\x00\x00\x00\x00abcde"),
        ("an HTTP/2 continuation of nothing", b"\x00\x00\x01\x09\x00\x00\x00\x00\x01a"),
    ] {
        let mut stream = socket(&dev);
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let _ = stream.write_all(bytes);
        let said = read_some(&mut stream);
        verdict("headers", case, &format!("{} bytes, closed", said.len()));
    }
    still_serves(&dev);
}

#[test]
fn what_upstreams_send_is_bounded_and_not_unpacked() {
    let json_type = |encoding: Option<&str>| {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(encoding.map(|e| ("content-encoding", e.to_owned())));
        headers
    };
    // 20 MiB of zeros by gzip are 20 KiB; whoever unpacks it has the 20 MiB.
    let bomb = [vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], vec![0; 20_000]].concat();
    let deep = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let table = [
        ("gzip", Answers::Raw(200, json_type(Some("gzip")), bomb.clone()), "PV-UPSTREAM-GARBAGE"),
        ("br", Answers::Raw(200, json_type(Some("br")), bomb.clone()), "PV-UPSTREAM-GARBAGE"),
        ("zstd", Answers::Raw(200, json_type(Some("zstd")), bomb.clone()), "PV-UPSTREAM-GARBAGE"),
        ("gzip, gzip", Answers::Raw(200, json_type(Some("gzip, gzip")), bomb), "PV-UPSTREAM-GARBAGE"),
        ("17 MiB", Answers::Raw(200, json_type(None), vec![b' '; 17 << 20]), "PV-UPSTREAM-TOO-LARGE"),
        ("100,000 deep", Answers::Raw(200, json_type(None), deep.into_bytes()), "PV-UPSTREAM-GARBAGE"),
        (
            "not UTF-8",
            Answers::Raw(200, json_type(None), b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"\xff\"}".to_vec()),
            "PV-UPSTREAM-GARBAGE",
        ),
    ];
    let ends: Vec<(&str, Upstream, &str)> =
        table.into_iter().map(|(case, answers, code)| (case, Upstream::start(answers), code)).collect();
    let plugins: String = ends
        .iter()
        .enumerate()
        .map(|(i, (_, up, _))| {
            format!(
                "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: u{i}, tenant: acme }}\n\
                 spec: {{ source: {{ mcp-http: {{ url: '{}' }} }} }}\n",
                up.url
            )
        })
        .collect();
    let dev = Dev::start(Some(&format!("{}{plugins}", upstream_yaml("http://127.0.0.1:9/mcp"))), &[]);
    for (i, (case, _, expected)) in ends.iter().enumerate() {
        let answer = call_tool(&dev, &format!("u{i}.t"), json!({}));
        let code = answer["error"]["data"]["code"].as_str().unwrap_or("none").to_owned();
        verdict("upstream", case, &code);
        assert_eq!(&code, expected, "{case}: {answer}");
    }
}
