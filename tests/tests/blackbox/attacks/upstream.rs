//! An upstream that notes what it is given, and says it back.

use std::sync::{Arc, Mutex};

use axum::{body::Body, extract::State, response::Response};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How it answers a call.
#[derive(Clone, Debug)]
pub enum Answers {
    /// With the request's headers and query as text.
    Echo,
    /// With this status, these headers and this body.
    Raw(u16, Vec<(&'static str, String)>, Vec<u8>),
}

/// It, running.
pub struct Upstream {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

type Shared = (Arc<Mutex<Vec<String>>>, Answers);

impl Upstream {
    pub fn start(answers: Answers) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let router = axum::Router::new().fallback(answer).with_state((seen.clone(), answers));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, _runtime: runtime }
    }

    /// Path, query, headers and body of every request.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(State((seen, answers)): State<Shared>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    let said = format!("{} {:?} {}", parts.uri, parts.headers, String::from_utf8_lossy(&body));
    seen.lock().unwrap().push(said.clone());
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let json = |value: Value| {
        let whole = json!({"jsonrpc": "2.0", "id": message["id"], "result": value});
        Response::builder().header("content-type", "application/json").body(Body::from(whole.to_string())).unwrap()
    };
    match (message["method"].as_str().unwrap_or_default(), answers) {
        ("server/discover", _) => json(json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"})),
        ("tools/list", _) => json(json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "tools": [{"name": "t", "inputSchema": {"type": "object"}}]})),
        (_, Answers::Echo) => json(json!({"resultType": "complete", "content": [{"type": "text", "text": said}]})),
        (_, Answers::Raw(status, headers, body)) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
    }
}
