//! What is no upgrade, no frame or no message: each gets its own clear answer, and the node goes on.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::{
    harness::{Dev, START_LIMIT},
    websocket::records,
    ws_client::{Socket, upgrade},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_is_not_good_is_refused_before_there_is_a_socket() {
    let dev = Dev::start(None, &[]);
    type Case = (&'static str, &'static str, Option<&'static str>, u16, &'static str);
    let unknown = "Bearer pv_nobody_0000000000000000000000000000000000000000000";
    let cases: [Case; 8] = [
        ("no token", "authorization", None, 401, ""),
        ("unknown token", "authorization", Some(unknown), 401, ""),
        ("no subprotocol", "sec-websocket-protocol", None, 400, "PV-WS-SUBPROTOCOL"),
        ("other subprotocol", "sec-websocket-protocol", Some("mqtt, MCP"), 400, "PV-WS-SUBPROTOCOL"),
        ("old version", "sec-websocket-version", Some("8"), 426, "PV-WS-HANDSHAKE"),
        ("bad key", "sec-websocket-key", Some("c2hvcnQ="), 400, "PV-WS-HANDSHAKE"),
        ("foreign page", "origin", Some("http://evil.example"), 403, "PV-HTTP-ORIGIN"),
        ("rebound name", "host", Some("evil.example"), 403, "PV-HTTP-HOST"),
    ];
    for (name, header, value, status, code) in cases {
        let (got, headers, body) = refused_with(&dev, header, value).await;
        assert_eq!(got, status, "{name}: {body}");
        assert!(body["error"]["message"].is_string(), "{name}: {body}");
        assert!(body["error"]["data"]["code"].as_str().unwrap_or_default().contains(code), "{name}: {body}");
        assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{name}: {headers:?}");
    }
    // A page of an allowed origin passes, and so does the good upgrade.
    let mut page = upgrade(&dev, "");
    page.headers_mut().insert("origin", HeaderValue::from_static("http://localhost:5173"));
    assert!(Socket::connect(page).await.modern("tools/list", json!({})).await["result"].is_object());
    // Who is unknown is recorded; what else is wrong with an upgrade is no matter of the record.
    let denied = records(&dev, &["--tenant", "cluster"]);
    let mine: Vec<_> = denied.iter().filter(|r| r["mcp.method.name"] == "websocket/open").collect();
    assert_eq!(mine.len(), 2, "{denied:?}");
    assert!(mine.iter().all(|r| r["phase"] == "denied" && r["network.transport"] == "ws"), "{mine:?}");
}

/// The refusal of a good upgrade but for one header; `None` leaves it out.
async fn refused_with(dev: &Dev, name: &'static str, value: Option<&str>) -> (u16, HeaderMap, Value) {
    // By hand: the client library would not send most of these.
    let address = dev.base().trim_start_matches("http://").to_owned();
    let bearer = format!("Bearer {}", dev.token());
    let mut headers = vec![
        ("host", address.as_str()),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "mcp"),
        ("authorization", bearer.as_str()),
    ];
    headers.retain(|(n, _)| *n != name);
    headers.extend(value.map(|value| (name, value)));
    let mut head = String::from("GET /mcp HTTP/1.1\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    read_refusal(stream).await
}

/// Status, headers and JSON body of an HTTP/1.1 response.
async fn read_refusal(mut stream: TcpStream) -> (u16, HeaderMap, Value) {
    let mut got = Vec::new();
    loop {
        let mut chunk = [0u8; 4096];
        let reading = tokio::time::timeout(START_LIMIT, stream.read(&mut chunk));
        let read = reading.await.expect("no answer").unwrap();
        got.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&got);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(read > 0, "half an answer: {text}");
            continue;
        };
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            headers.append(HeaderName::try_from(name).unwrap(), value.trim().parse().unwrap());
        }
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        if body.len() >= length {
            return (status, headers, serde_json::from_str(body).unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_are_answered_and_the_socket_goes_on() {
    let dev = Dev::start(None, &[]);
    let mut socket = Socket::legacy(&dev, "", json!({})).await;
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"m\",\"params\":{}1{}}}",
        "{\"a\":".repeat(2_000),
        "}".repeat(2_000)
    );
    let cases = [
        ("not JSON", "{oops", -32700, "PV-MCP-PARSE", json!(null)),
        ("empty", "", -32700, "PV-MCP-PARSE", json!(null)),
        ("batch", r#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#, -32600, "PV-MCP-INVALID-REQUEST", json!(null)),
        (
            "duplicate keys",
            r#"{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/list"}"#,
            -32600,
            "PV-MCP-DUPLICATE-KEY",
            json!(null),
        ),
        ("too deep", deep.as_str(), -32600, "PV-MCP-TOO-DEEP", json!(null)),
        ("no JSON-RPC", r#"{"id":7,"method":"ping"}"#, -32600, "PV-MCP-INVALID-REQUEST", json!(7)),
        (
            "unknown method",
            r#"{"jsonrpc":"2.0","id":7,"method":"nothing/such"}"#,
            -32601,
            "PV-MCP-METHOD-NOT-FOUND",
            json!(7),
        ),
        (
            "second session",
            r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#,
            -32600,
            "PV-WS-SESSION-OPEN",
            json!(7),
        ),
        (
            "modern without capabilities",
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
            -32602,
            "PV-MCP-META-MISSING",
            json!(7),
        ),
        (
            "unknown version",
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01","io.modelcontextprotocol/clientCapabilities":{}}}}"#,
            -32022,
            "PV-MCP-UNSUPPORTED-VERSION",
            json!(7),
        ),
    ];
    for (name, message, number, code, id) in cases {
        socket.frame(Message::text(message)).await;
        let answer = socket.next().await.unwrap();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(number), &id), "{name}: {answer}");
        assert_eq!(answer["error"]["data"]["code"], code, "{name}: {answer}");
    }
    // Answers that nobody asked for, unknown notifications and unknown cancellations are no errors.
    for message in [
        json!({ "jsonrpc": "2.0", "id": "provost-1", "result": {} }),
        json!({ "jsonrpc": "2.0", "method": "notifications/nothing" }),
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 4711 } }),
    ] {
        socket.send(message).await;
    }
    assert!(socket.request("tools/list", json!({})).await["result"].is_object());
    assert!(socket.others.is_empty(), "{:?}", socket.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_close_the_socket_with_the_code_that_says_why() {
    let dev = Dev::start(None, &[]);
    let frame = |opcode: Data, payload: Vec<u8>| Message::Frame(Frame::message(payload, OpCode::Data(opcode), true));
    let mut reserved = Frame::message(&b"{}"[..], OpCode::Data(Data::Text), true);
    reserved.header_mut().rsv2 = true;
    let cases = [
        ("binary", Message::binary(&b"{}"[..]), 1003, "PV-WS-BINARY"),
        ("not UTF-8", frame(Data::Text, vec![0xFF, 0xFE, b'{']), 1007, "PV-WS-UTF8"),
        ("continuation of nothing", frame(Data::Continue, b"{}".to_vec()), 1002, "PV-WS-PROTOCOL"),
        ("reserved bit", Message::Frame(reserved), 1002, "PV-WS-PROTOCOL"),
        ("too large", Message::text("x".repeat((4 << 20) + 1)), 1009, "PV-WS-TOO-LARGE"),
    ];
    for (name, message, code, reason) in cases {
        let mut socket = Socket::open(&dev, "").await;
        socket.frame(message).await;
        let (got, why) = socket.closed().await;
        assert_eq!(got, code, "{name}: {why}");
        assert!(why.starts_with(reason), "{name}: {why}");
    }
    // Just within the bound: a message like any other. Fragments and pings between them are allowed.
    let mut socket = Socket::open(&dev, "").await;
    let answer = socket.call("echo.echo", json!({ "text": "x".repeat(4_000_000) })).await;
    assert!(answer["result"].is_object(), "{:.200}", answer.to_string());
    let message = crate::harness::modern("tools/list", json!({})).to_string().into_bytes();
    let (first, rest) = message.split_at(20);
    socket.frame(Message::Frame(Frame::message(first.to_vec(), OpCode::Data(Data::Text), false))).await;
    socket.frame(Message::Ping(Bytes::from_static(b"between"))).await;
    socket.frame(Message::Frame(Frame::message(rest.to_vec(), OpCode::Data(Data::Continue), true))).await;
    assert!(socket.answer(1).await["result"].is_object());
}
