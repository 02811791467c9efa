//! What must not pass, with the answer it gets.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{LEGACY, MODERN, World, modern_request};

const TOOLS_LIST: &str = r#"{"jsonrpc":"2.0","id":5,"method":"tools/list"}"#;

#[tokio::test]
async fn doors() {
    let world = World::new();
    let table: &[(&[(&str, &str)], u16, &str)] = &[
        (&[("host", "localhost:8420")], 200, ""),
        (&[("host", "evil.example.com")], 403, "PV-HTTP-HOST"),
        (&[("host", "localhost.evil.example.com:80")], 403, "PV-HTTP-HOST"),
        (&[("origin", "http://localhost:5173")], 200, ""),
        (&[("origin", "http://evil.example.com")], 403, "PV-HTTP-ORIGIN"),
        (&[("origin", "null")], 403, "PV-HTTP-ORIGIN"),
        (&[("content-type", "text/plain")], 415, "PV-HTTP-CONTENT-TYPE"),
        (&[("content-type", "application/json; charset=utf-8")], 200, ""),
        (&[("accept", "text/html")], 406, "PV-HTTP-NOT-ACCEPTABLE"),
        (&[("accept", "Application/JSON, TEXT/Event-Stream;q=0.5")], 200, ""),
        (&[("accept", "application/json;q=0, text/event-stream; Q=0.000")], 406, "PV-HTTP-NOT-ACCEPTABLE"),
        (&[("content-encoding", "gzip")], 415, "PV-HTTP-CONTENT-ENCODING"),
        (&[("content-encoding", "identity")], 200, ""),
        (&[("host", "localhost:80@evil.example.com")], 403, "PV-HTTP-HOST"),
        (&[("authorization", "Bearer wrong")], 401, "PV-AUTH-UNKNOWN"),
        (&[("mcp-session-id", "AAAA")], 404, "PV-MCP-SESSION-UNKNOWN"),
        (&[("mcp-protocol-version", "1999-01-01")], 400, "PV-MCP-UNSUPPORTED-VERSION"),
    ];
    for (headers, status, code) in table {
        let said = world.post(headers, TOOLS_LIST).await;
        assert_eq!(said.status.as_u16(), *status, "{headers:?}: {}", said.text);
        assert_eq!(said.pv(), *code, "{headers:?}");
    }
}

#[tokio::test]
async fn a_refused_caller_is_told_where_to_get_a_token() {
    let said = World::new().post(&[("authorization", "Bearer wrong")], TOOLS_LIST).await;
    assert_eq!(
        said.header("www-authenticate"),
        "Bearer error=\"invalid_token\", \
         resource_metadata=\"http://127.0.0.1:8420/.well-known/oauth-protected-resource/mcp\""
    );
}

#[tokio::test]
async fn bodies() {
    let world = World::new();
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"a":{}{}}}}}"#,
        "[".repeat(80),
        "]".repeat(80)
    );
    let large =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"a":"{}"}}}}"#, "x".repeat(70_000));
    let table: Vec<(&str, Vec<u8>, u16, i64, &str)> = vec![
        ("not json", b"{nope".to_vec(), 400, -32700, "PV-MCP-PARSE"),
        ("empty", Vec::new(), 400, -32700, "PV-MCP-PARSE"),
        ("not utf-8", b"{\"jsonrpc\":\"2.0\xFF\"}".to_vec(), 400, -32700, "PV-MCP-PARSE"),
        ("trailing", b"{} {}".to_vec(), 400, -32700, "PV-MCP-PARSE"),
        ("deep", deep.into_bytes(), 400, -32600, "PV-MCP-TOO-DEEP"),
        ("large", large.into_bytes(), 413, -32600, "PV-HTTP-BODY-TOO-LARGE"),
        (
            "batch",
            format!("[{TOOLS_LIST}]").into_bytes(),
            400,
            -32600,
            "PV-MCP-INVALID-REQUEST",
        ),
        (
            "duplicate key",
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"ping"}"#.to_vec(),
            400,
            -32600,
            "PV-MCP-DUPLICATE-KEY",
        ),
        (
            "nested duplicate key",
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"q":[{"a":1,"\u0061":2}]}}}"#
                .to_vec(),
            400,
            -32600,
            "PV-MCP-DUPLICATE-KEY",
        ),
        ("null id", br#"{"jsonrpc":"2.0","id":null,"method":"x"}"#.to_vec(), 400, -32600, "PV-MCP-INVALID-REQUEST"),
        (
            "long id",
            format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#, "x".repeat(300)).into_bytes(),
            400,
            -32600,
            "PV-MCP-INVALID-REQUEST",
        ),
        ("no version", br#"{"id":1,"method":"x"}"#.to_vec(), 400, -32600, "PV-MCP-INVALID-REQUEST"),
        (
            "params no object",
            br#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}"#.to_vec(),
            400,
            -32600,
            "PV-MCP-INVALID-REQUEST",
        ),
    ];
    for (what, body, status, number, code) in table {
        let said = world.post(&[], body).await;
        assert_eq!(said.status.as_u16(), status, "{what}: {}", said.text);
        assert_eq!((said.error_code(), said.pv().as_str()), (number, code), "{what}");
    }
    assert!(world.plane.events.lock().is_empty(), "nothing of this reached the pipeline");
}

#[tokio::test]
async fn what_is_too_long_is_said_to_be_and_not_said_back() {
    let world = World::new();
    let id = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#, "x".repeat(300));
    assert!(world.post(&[], id).await.text.contains("at most 256 bytes"));
    let method = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(300));
    assert!(world.post(&[], method).await.text.contains("at most 128 bytes"));
}

#[tokio::test]
async fn an_invalid_request_keeps_its_id() {
    let said = World::new().post(&[], r#"{"id":"mine","method":"x"}"#).await;
    assert_eq!(said.json()["id"], json!("mine"));
}

/// A modern request with one thing wrong.
async fn broken(world: &World, headers: &[(&'static str, &str)], change: impl FnOnce(&mut Value)) -> (u16, i64) {
    let (base, body) = modern_request("tools/call", json!({ "name": "echo", "arguments": {} }));
    let mut body: Value = serde_json::from_str(&body).unwrap();
    change(&mut body);
    let mut all: Vec<(&str, &str)> = headers.to_vec();
    for (name, value) in &base {
        if !headers.iter().any(|(n, _)| n == name) {
            all.push((name, value));
        }
    }
    let said = world.post(&all, body.to_string()).await;
    if said.error_code() != 0 {
        assert_eq!(said.json()["id"], json!(9), "an error carries the request's id");
    }
    (said.status.as_u16(), said.error_code())
}

#[tokio::test]
async fn modern_envelopes() {
    let world = World::new();
    let world = &world;
    let drop_meta = |key: &'static str| {
        move |v: &mut Value| {
            v["params"]["_meta"].as_object_mut().unwrap().remove(key);
        }
    };
    let version = "io.modelcontextprotocol/protocolVersion";
    assert_eq!(broken(world, &[], |_| {}).await, (200, 0));
    assert_eq!(broken(world, &[], |v| v["params"]["_meta"] = json!({})).await, (400, -32602));
    assert_eq!(broken(world, &[], drop_meta(version)).await, (400, -32602));
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    assert_eq!(broken(world, &[], drop_meta(capabilities)).await, (400, -32602));
    let info = "io.modelcontextprotocol/clientInfo";
    assert_eq!(broken(world, &[], drop_meta(info)).await, (200, 0));

    let header = "mcp-protocol-version";
    assert_eq!(broken(world, &[(header, "")], |_| {}).await, (400, -32020));
    assert_eq!(broken(world, &[(header, LEGACY)], |_| {}).await, (400, -32020));
    let unknown = |v: &mut Value| v["params"]["_meta"][version] = json!("v999");
    assert_eq!(broken(world, &[(header, MODERN)], unknown).await, (400, -32020));
    assert_eq!(broken(world, &[(header, "v999")], unknown).await, (400, -32022));

    assert_eq!(broken(world, &[("mcp-method", "")], |_| {}).await, (400, -32020));
    assert_eq!(broken(world, &[("mcp-method", "tools/list")], |_| {}).await, (400, -32020));
    assert_eq!(broken(world, &[("mcp-method", "TOOLS/CALL")], |_| {}).await, (400, -32020));
    assert_eq!(broken(world, &[("mcp-name", "")], |_| {}).await, (400, -32020));
    assert_eq!(broken(world, &[("mcp-name", "other")], |_| {}).await, (400, -32020));
    assert_eq!(broken(world, &[("mcp-name", "  echo ")], |_| {}).await, (200, 0));
    assert_eq!(broken(world, &[("mcp-name", "=?base64?ZWNobw==?=")], |_| {}).await, (200, 0));
    assert_eq!(broken(world, &[("mcp-name", "=?base64?ZWNob!!?=")], |_| {}).await, (400, -32020));
}

#[tokio::test]
async fn parameter_headers() {
    let world = World::new();
    let world = &world;
    let region = |v: &mut Value| {
        v["params"]["name"] = json!("region");
        v["params"]["arguments"] = json!({ "region": "Hello" });
    };
    let name = ("mcp-name", "region");
    let table = [
        ("Hello", 200, 0),
        ("=?base64?SGVsbG8=?=", 200, 0),
        ("=?base64?SGVsbG8?=", 400, -32020),
        ("SGVsbG8=", 400, -32020),
        ("hello", 400, -32020),
        ("", 400, -32020),
    ];
    for (value, status, code) in table {
        let got = broken(world, &[name, ("mcp-param-region", value)], region).await;
        assert_eq!(got, (status, code), "{value:?}");
    }
}

#[tokio::test]
async fn methods_that_are_gone_or_never_were() {
    let world = World::new();
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
        "unknown/method",
    ] {
        let said = world.modern(method, json!({ "uri": "x", "taskId": "t" })).await;
        assert_eq!((said.status.as_u16(), said.error_code()), (404, -32601), "{method}");
        assert_eq!(said.json()["id"], json!(9));
    }
}

#[tokio::test]
async fn modern_clients_neither_get_nor_delete() {
    let world = World::new();
    for method in [Method::GET, Method::DELETE] {
        let said = world.send(method, "/mcp", &[("mcp-protocol-version", MODERN)], "").await;
        assert_eq!(said.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(said.header("allow"), "POST");
    }
}

#[tokio::test]
async fn paths() {
    let world = World::new();
    let bad = ["/nothing", "/mcp/", "/mcp/UPPER", "/mcp/a/b", "/mcpx", "/.well-known/x"];
    for path in bad {
        let said = world.send(Method::GET, path, &[], "").await;
        assert_eq!(said.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/healthz", "/readyz", "/"] {
        let said = world.send(Method::GET, path, &[("host", "127.0.0.1")], "").await;
        assert_eq!(said.status, StatusCode::OK, "{path}");
    }
    let said = world.send(Method::GET, "/.well-known/oauth-protected-resource/mcp/sql", &[], "").await;
    assert_eq!(said.json()["resource"], json!("http://127.0.0.1:8420/mcp/sql"));
}
