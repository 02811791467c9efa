//! HTTP upstreams that fail in every way that we could think of: each a clear error, none a hang.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::State, response::Response};
use provost_data_tools::Limits;
use provost_types::Era;
use serde_json::{Value, json};

use crate::bench::*;

/// What a scripted server does with one request.
#[derive(Clone, Debug)]
pub enum Scripted {
    /// A sound answer to the handshake and to lists.
    Default,
    /// This result.
    Raw(String),
    /// An error of this number and these words.
    Error(i64, &'static str),
    /// This body as it is, as JSON.
    Body(String),
    /// This status with this content type and body.
    Status(u16, &'static str, String),
    /// An event stream of these events, and then the end.
    Events(Vec<String>),
    /// Nothing, for a minute.
    Hang,
}

type Script = dyn Fn(&str, &Value) -> Scripted + Send + Sync;

pub struct ScriptServer {
    pub url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ScriptServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server whose answers are a function of method and params (legacy session ids are counted up).
pub async fn script(script: impl Fn(&str, &Value) -> Scripted + Send + Sync + 'static) -> ScriptServer {
    let script: Arc<Script> = Arc::new(script);
    let router = axum::Router::new().fallback(answer).with_state(script);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    ScriptServer { url: format!("http://{address}/mcp"), task }
}

async fn answer(State(script): State<Arc<Script>>, request: axum::extract::Request) -> Response {
    let session = request.headers().get("mcp-session-id").map(|v| v.to_str().unwrap().to_owned());
    if request.method() != "POST" {
        // Only a resumed stream; the session's own is not offered.
        return match request.headers().get("last-event-id").map(|v| v.to_str().unwrap()) {
            Some(last) => match script("GET", &json!({"last": last})) {
                Scripted::Status(status, kind, body) => reply(status, kind, body),
                other => panic!("a resumed stream cannot be {other:?}"),
            },
            None => reply(405, "text/plain", String::new()),
        };
    }
    let path = request.uri().path().to_owned();
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let message: Value = serde_json::from_slice(&bytes).unwrap();
    let method = message["method"].as_str().unwrap_or_default();
    if message["id"].is_null() {
        return match path.as_str() {
            // As servers on the official Python SDK do in the legacy era.
            "/typed" => reply(202, "application/json", String::new()),
            "/chatty" => reply(200, "application/json", "{}".to_owned()),
            "/worded" => reply(200, "text/plain", "ok".to_owned()),
            "/failing" => reply(500, "text/plain", "oops".to_owned()),
            _ => reply(202, "text/plain", String::new()),
        };
    }
    let mut params = message["params"].clone();
    if let Some(session) = session {
        params["_session"] = session.into();
    }
    let wrap = |result: String| format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, message["id"]);
    match script(method, &params) {
        Scripted::Raw(result) => reply(200, "application/json", wrap(result)),
        Scripted::Error(code, words) => {
            let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": words}});
            reply(200, "application/json", error.to_string())
        }
        Scripted::Body(body) => reply(200, "application/json", body),
        Scripted::Status(status, kind, body) => reply(status, kind, body),
        Scripted::Events(events) => {
            let body: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
            reply(200, "text/event-stream", body)
        }
        Scripted::Hang => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            reply(500, "text/plain", String::new())
        }
        Scripted::Default => {
            let result = match method {
                "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                    "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
                "tools/list" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                    "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
                _ => json!({"resultType": "complete", "content": [{"type": "text", "text": "fine"}]}),
            };
            reply(200, "application/json", wrap(result.to_string()))
        }
    }
}

fn reply(status: u16, kind: &'static str, body: String) -> Response {
    let session = format!("session-{}", NEXT_SESSION.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("mcp-session-id", session)
        .body(Body::from(body))
        .unwrap()
}

static NEXT_SESSION: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

#[tokio::test]
async fn every_failure_of_a_call_has_its_code() {
    let result = r#"{"content":[]}"#;
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#.to_owned();
    let table = [
        ("not JSON", Scripted::Body("<html>oops</html>".into()), "PV-UPSTREAM-GARBAGE"),
        ("not MCP", Scripted::Body("[]".into()), "PV-UPSTREAM-GARBAGE"),
        ("an empty body", Scripted::Body(String::new()), "PV-UPSTREAM-GARBAGE"),
        (
            "a key twice",
            Scripted::Raw(r#"{"content":[],"isError":false,"isError":true}"#.into()),
            "PV-UPSTREAM-GARBAGE",
        ),
        (
            "another id",
            Scripted::Body(format!(r#"{{"jsonrpc":"2.0","id":"other","result":{result}}}"#)),
            "PV-UPSTREAM-GARBAGE",
        ),
        ("no result", Scripted::Raw("null".into()), "PV-UPSTREAM-GARBAGE"),
        ("a list for a result", Scripted::Raw("[1, 2]".into()), "PV-UPSTREAM-GARBAGE"),
        ("a page", Scripted::Status(200, "text/html", "<p>".into()), "PV-UPSTREAM-GARBAGE"),
        ("deep JSON", Scripted::Raw(format!("{}{}", "[".repeat(500), "]".repeat(500))), "PV-UPSTREAM-GARBAGE"),
        ("a failed gateway", Scripted::Status(502, "text/html", "bad gateway".into()), "PV-UPSTREAM-HTTP"),
        ("a redirect", Scripted::Status(302, "text/html", String::new()), "PV-UPSTREAM-HTTP"),
        ("no access", Scripted::Status(401, "text/plain", String::new()), "PV-UPSTREAM-UNAUTHORIZED"),
        ("accepted only", Scripted::Status(202, "text/plain", String::new()), "PV-UPSTREAM-DIED"),
        ("accepted only, as JSON", Scripted::Status(202, "application/json", String::new()), "PV-UPSTREAM-DIED"),
        ("a stream that ends", Scripted::Events(vec![progress]), "PV-UPSTREAM-DIED"),
        ("a stream of garbage", Scripted::Events(vec!["{]".into()]), "PV-UPSTREAM-GARBAGE"),
        ("too much JSON", Scripted::Raw(format!("\"{}\"", "x".repeat(20_000))), "PV-UPSTREAM-TOO-LARGE"),
        ("too long an event", Scripted::Events(vec!["x".repeat(40_000)]), "PV-UPSTREAM-TOO-LARGE"),
        ("silence", Scripted::Hang, "PV-UPSTREAM-TIMEOUT"),
    ];
    for (what, behaviour, code) in table {
        let (for_calls, hangs) = (behaviour.clone(), matches!(behaviour, Scripted::Hang));
        let server = script(move |method, _| match method {
            "tools/call" => for_calls.clone(),
            _ => Scripted::Default,
        })
        .await;
        let limits = Limits { max_answer_bytes: 10_000, ..Limits::default() };
        let (_toolbox, plugin) = plugin_with(http_spec(&server.url, Era::Modern), limits);
        let operation = provost_data_pipeline::Operation::CallTool("t".into());
        let (client, link) = (modern_client(), TestLink::default());
        // Only silence is to last until the deadline.
        let time = if hangs { Duration::from_millis(700) } else { Duration::from_secs(30) };
        let done = execute_within(&plugin, operation, json!({"name": "t"}), &client, &link, time).await;
        assert_eq!(pv_code(&done), code, "{what}: {:?}", done.reply);
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_says_so() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    for era in [Era::Auto, Era::Modern, Era::Legacy] {
        let done = call(&plugin(http_spec(&url, era)), "t", json!({})).await;
        assert_eq!(pv_code(&done), "PV-UPSTREAM-UNREACHABLE", "{era:?}");
    }
    for url in ["http://example.com/mcp", "https://10.0.0.1/mcp", "https://169.254.169.254/mcp"] {
        let done = call(&plugin(http_spec(url, Era::Auto)), "t", json!({})).await;
        assert_eq!(pv_code(&done), "PV-UPSTREAM-ADDRESS-REFUSED", "{url}");
    }
}

#[tokio::test]
async fn a_silent_handshake_ends_in_time() {
    let server = script(|_, _| Scripted::Hang).await;
    let limits = Limits { connect_timeout: Duration::from_millis(300), ..Limits::default() };
    for era in [Era::Auto, Era::Modern, Era::Legacy] {
        let (_toolbox, plugin) = plugin_with(http_spec(&server.url, era), limits.clone());
        let done = call(&plugin, "t", json!({})).await;
        assert_eq!(pv_code(&done), "PV-UPSTREAM-UNREACHABLE", "{era:?}");
    }
}

fn initialize_result() -> String {
    json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
           "serverInfo": {"name": "s", "version": "1"}})
    .to_string()
}

#[tokio::test]
async fn a_forgotten_session_is_made_anew_once() {
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = calls.clone();
    let server = script(move |method, params| match method {
        "initialize" => Scripted::Raw(initialize_result()),
        "tools/call" if counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => Scripted::Status(
            404,
            "application/json",
            json!({"jsonrpc": "2.0", "id": null,
                "error": {"code": -32001, "message": "session not found"}})
            .to_string(),
        ),
        "tools/call" => Scripted::Raw(json!({"content": [{"type": "text", "text": params["_session"]}]}).to_string()),
        _ => Scripted::Status(404, "text/plain", String::new()),
    })
    .await;
    let plugin = plugin(http_spec(&server.url, Era::Auto));
    let first = call(&plugin, "t", json!({})).await;
    assert!(text(&first).starts_with("session-"), "{first:?}");
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 2);
    let second = call(&plugin, "t", json!({})).await;
    assert_eq!(text(&first), text(&second), "the new session is kept");
}

#[tokio::test]
async fn what_a_server_says_to_a_notification_decides_nothing_but_a_failure_does() {
    for (path, code) in [("/typed", ""), ("/chatty", ""), ("/worded", ""), ("/failing", "PV-UPSTREAM-HTTP")] {
        let server = script(|method, _| match method {
            "initialize" => Scripted::Raw(initialize_result()),
            "server/discover" => Scripted::Status(404, "text/plain", String::new()),
            _ => Scripted::Default,
        })
        .await;
        let url = server.url.replace("/mcp", path);
        for era in [Era::Auto, Era::Legacy] {
            let done = call(&plugin(http_spec(&url, era)), "t", json!({})).await;
            match code {
                "" => assert_eq!(text(&done), "fine", "{path} {era:?}"),
                code => assert_eq!(pv_code(&done), code, "{path} {era:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_server_of_an_unknown_revision_is_refused() {
    let server = script(|method, _| match method {
        "initialize" => Scripted::Raw(json!({"protocolVersion": "1999-01-01", "capabilities": {}}).to_string()),
        _ => Scripted::Status(400, "text/plain", String::new()),
    })
    .await;
    let done = call(&plugin(http_spec(&server.url, Era::Auto)), "t", json!({})).await;
    assert_eq!(pv_code(&done), "PV-UPSTREAM-GARBAGE");
}

#[tokio::test]
async fn stale_header_marks_are_refreshed_once() {
    let lists = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (list_counter, call_counter) = (lists.clone(), calls.clone());
    let server = script(move |method, _| match method {
        "tools/list" => {
            list_counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Scripted::Default
        }
        "tools/call" if call_counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => Scripted::Status(
            400,
            "application/json",
            json!({"jsonrpc": "2.0", "id": null,
                "error": {"code": -32020, "message": "a header is missing"}})
            .to_string(),
        ),
        _ => Scripted::Default,
    })
    .await;
    let plugin = plugin(http_spec(&server.url, Era::Modern));
    plugin.tools().await.unwrap();
    assert_eq!(text(&call(&plugin, "t", json!({})).await), "fine");
    assert_eq!(lists.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_legacy_stream_is_resumed_where_it_broke() {
    let server = script(|method, params| match method {
        "initialize" => Scripted::Raw(initialize_result()),
        "tools/call" => Scripted::Status(200, "text/event-stream", "id: e1\nretry: 10\ndata:\n\n".to_owned()),
        "GET" => {
            assert_eq!(params["last"], "e1");
            // The first call of a connection has the id 16.
            let answer = json!({"jsonrpc": "2.0", "id": 16,
                "result": {"content": [{"type": "text", "text": "resumed"}]}});
            Scripted::Status(200, "text/event-stream", format!("id: e2\ndata: {answer}\n\n"))
        }
        _ => Scripted::Status(404, "text/plain", String::new()),
    })
    .await;
    let plugin = plugin(http_spec(&server.url, Era::Legacy));
    assert_eq!(text(&call(&plugin, "t", json!({})).await), "resumed");
}
