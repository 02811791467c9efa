//! Credentials that are injected: used where they belong, and seen nowhere else.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, extract::State, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use provost_data_pipeline::{Operation, Reply};
use provost_data_tools::Limits;
use provost_types::{Era, HttpPlugin, PluginSource, PluginSpec, SecretRef, StdioPlugin};
use serde_json::{Value, json};

use crate::bench::*;

/// What every secret of [`toolbox`] is.
const SECRET: &str = "s3cret";

/// What a request brought.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub authorization: String,
    pub key: String,
    pub query: String,
}

/// How an upstream says back what it was given.
#[derive(Clone, Copy, Debug)]
enum Echo {
    Result,
    Encoded,
    Stream,
    RpcError,
    HttpError,
    Page,
    Garbage,
}

struct EchoServer {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo_server(echo: Echo) -> EchoServer {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let router = axum::Router::new().fallback(say_back).with_state((echo, seen.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    EchoServer { url, seen, task }
}

async fn say_back(
    State((echo, seen)): State<(Echo, Arc<Mutex<Vec<Seen>>>)>,
    request: axum::extract::Request,
) -> Response {
    let (parts, sent) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    let brought = Seen {
        method: header("mcp-method"),
        authorization: header("authorization"),
        key: header("x-api-key"),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    };
    seen.lock().unwrap().push(brought.clone());
    let bytes = axum::body::to_bytes(sent, 1 << 20).await.unwrap();
    let message: Value = serde_json::from_slice(&bytes).unwrap();
    let id = &message["id"];
    let reply = |status: u16, kind: &str, body: String| {
        Response::builder().status(status).header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
    match message["method"].as_str().unwrap_or_default() {
        "server/discover" => {
            let result = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"});
            return reply(200, "application/json", answer(result));
        }
        "tools/list" => {
            let result = json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "tools": [{"name": "t", "description": format!("{brought:?}"), "inputSchema": {"type": "object"}}]});
            return reply(200, "application/json", answer(result));
        }
        _ => {}
    }
    let said = format!("{brought:?}");
    let text = |text: &str| json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
    match echo {
        Echo::Result => reply(200, "application/json", answer(text(&said))),
        Echo::Encoded => {
            let basic = BASE64_STANDARD.encode(format!("user:{}", brought.key));
            let escaped: String = brought.key.bytes().map(|b| format!("\\u{b:04x}")).collect();
            let percent: String = brought.key.bytes().map(|b| format!("%{b:02X}")).collect();
            let body = answer(text(&format!("Basic {basic} {percent} PLACE"))).replace("PLACE", &escaped);
            reply(200, "application/json", body)
        }
        Echo::Stream => {
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1, "message": said}});
            reply(200, "text/event-stream", format!("data: {progress}\n\ndata: {}\n\n", answer(text(&said))))
        }
        Echo::RpcError => {
            let error = json!({"code": -32000, "message": said, "data": {"given": said}});
            reply(200, "application/json", json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
        }
        Echo::HttpError => reply(500, "text/plain", format!("stack trace: {said}")),
        Echo::Page => reply(200, "text/html", format!("<p>{said}</p>")),
        Echo::Garbage => reply(200, "application/json", format!("{{\"jsonrpc\" {said}")),
    }
}

fn secret(prefix: &str) -> SecretRef {
    SecretRef { secret: name("api"), prefix: prefix.to_owned() }
}

fn given(url: &str) -> PluginSpec {
    spec(PluginSource::McpHttp(HttpPlugin {
        url: url.to_owned(),
        secret_headers: BTreeMap::from([
            ("authorization".to_owned(), secret("Bearer ")),
            ("x-api-key".to_owned(), secret("")),
        ]),
        secret_query: BTreeMap::from([("key".to_owned(), secret(""))]),
        era: Era::Modern,
        ..HttpPlugin::default()
    }))
}

#[tokio::test]
async fn what_an_upstream_says_back_is_written_over() {
    for echo in [Echo::Result, Echo::Encoded, Echo::Stream, Echo::RpcError, Echo::HttpError, Echo::Page, Echo::Garbage]
    {
        let server = echo_server(echo).await;
        let plugin = plugin(given(&server.url));
        let (client, link) = (modern_client(), TestLink::default());
        let params = json!({"name": "t", "_meta": {"progressToken": "p"}});
        let done = execute(&plugin, Operation::CallTool("t".into()), params, &client, &link).await;
        let told = link.told.lock().unwrap().clone();
        let shown = match &done.reply {
            Reply::Error(error) => format!("{error:?}"),
            other => format!("{other:?} {}", body(&done)),
        };
        println!("{echo:?}: {shown} {told:?}");
        // It was given: without that the test says nothing.
        let seen = server.seen.lock().unwrap().last().unwrap().clone();
        assert_eq!((seen.authorization.as_str(), seen.key.as_str()), ("Bearer s3cret", SECRET));
        assert_eq!(seen.query, "key=s3cret");
        for hidden in [SECRET, "dXNlcjpzM2NyZXQ", "%73%33%63", "\\u0073\\u0033"] {
            assert!(!shown.contains(hidden), "{echo:?} shows {hidden}: {shown}");
            assert!(!format!("{told:?}").contains(hidden), "{echo:?} told {hidden}: {told:?}");
        }
        if !matches!(echo, Echo::Garbage) {
            assert!(shown.contains("[redacted]"), "{echo:?}: {shown}");
        }
        let tools = plugin.tools().await.unwrap();
        let listed = tools.iter().map(|t| t.raw.as_str()).collect::<String>();
        assert!(listed.contains("[redacted]") && !listed.contains(SECRET), "{listed}");
    }
}

#[tokio::test]
async fn what_a_process_says_of_its_secret_is_written_over() {
    let script = r#"echo "starting with $KEY" >&2; read line; echo "key was $KEY" >&2; exit 3"#;
    let spec = spec(PluginSource::McpStdio(StdioPlugin {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::new(),
        secret_env: BTreeMap::from([("KEY".to_owned(), secret(""))]),
        cwd: None,
        era: Era::Modern,
        instances: Default::default(),
        isolation: None,
    }));
    let done = call(&plugin(spec), "t", json!({})).await;
    let Reply::Error(error) = &done.reply else { panic!("{done:?}") };
    assert!(error.message.contains("starting with [redacted] | key was [redacted]"), "{}", error.message);
    assert!(!error.message.contains(SECRET), "{}", error.message);
}

#[tokio::test]
async fn a_compressed_answer_is_not_taken() {
    let router = axum::Router::new().fallback(|| async {
        // Ten bytes that would become many.
        Response::builder()
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
            .body(Body::from(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]))
            .unwrap()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let done = call(&plugin(http_spec(&url, Era::Modern)), "t", json!({})).await;
    assert_eq!(pv_code(&done), "PV-UPSTREAM-GARBAGE");
    task.abort();
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_asked() {
    // A proxy that notes whoever connects; what reads these variables would go there.
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let server = echo_server(Echo::Result).await;
    let url = server.url.clone();
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "credentials::child_calls_an_upstream", "--ignored", "--nocapture"])
        .env("PROVOST_TEST_URL", &url)
        .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"].map(|k| (k, &address)))
        .output();
    let asked = tokio::select! {
        biased;
        asked = proxy.accept() => Some(asked.unwrap().1),
        done = child => {
            let done = done.unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
            None
        }
    };
    assert_eq!(asked, None, "the proxy was asked");
    assert!(server.seen.lock().unwrap().iter().any(|s| s.method == "tools/call"));
}

/// Run by the test above, with proxy variables in its environment.
#[tokio::test]
#[ignore = "a part of proxies_of_the_environment_are_not_asked"]
async fn child_calls_an_upstream() {
    let Ok(url) = std::env::var("PROVOST_TEST_URL") else { return };
    let (_toolbox, plugin) = plugin_with(given(&url), Limits::default());
    let done = execute_within(
        &plugin,
        Operation::CallTool("t".into()),
        json!({"name": "t"}),
        &modern_client(),
        &TestLink::default(),
        Duration::from_secs(60),
    )
    .await;
    assert!(text(&done).contains("[redacted]"), "{done:?}");
}
