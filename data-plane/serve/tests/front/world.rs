//! A front end over the fake plane, spoken to without sockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use provost_data_serve::{
    Frontend, FrontendConfig, Peer, QuicLimits, ResponseBody, SealKeys, SocketLimits, ToolSchemas,
};
use provost_mcp::RawJson;
use serde_json::{Value, json};

use crate::plane::FakePlane;

pub const MODERN: &str = "2026-07-28";
pub const LEGACY: &str = "2025-11-25";

/// A response that was read to its end.
#[derive(Debug)]
pub struct Said {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Said {
    /// The JSON body, or the last event that is an answer.
    pub fn json(&self) -> Value {
        if self.is_events() {
            return self.events().pop().unwrap_or_default();
        }
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub fn is_events(&self) -> bool {
        self.headers.get("content-type").is_some_and(|t| t == "text/event-stream")
    }

    /// The data of every event that holds JSON.
    pub fn events(&self) -> Vec<Value> {
        data_lines(&self.text).iter().filter_map(|d| serde_json::from_str(d).ok()).collect()
    }

    pub fn error_code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_default()
    }

    /// Our stable code.
    pub fn pv(&self) -> String {
        self.json()["error"]["data"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

pub fn data_lines(text: &str) -> Vec<&str> {
    text.lines().filter_map(|l| l.strip_prefix("data: ")).collect()
}

struct Schemas;

impl ToolSchemas for Schemas {
    fn input_schema(
        &self,
        _: &provost_data_pipeline::Credential,
        _: &provost_data_pipeline::Route,
        tool: &str,
    ) -> Option<RawJson> {
        (tool == "region").then(|| {
            RawJson::from(json!({ "type": "object", "properties": {
                "region": { "type": "string", "x-mcp-header": "Region" } } }))
        })
    }
}

pub struct World {
    pub plane: Arc<FakePlane>,
    pub front: Arc<Frontend<FakePlane>>,
}

impl World {
    pub fn new() -> Self {
        Self::with_sockets(SocketLimits::DEFAULT)
    }

    pub fn with_sockets(sockets: SocketLimits) -> Self {
        Self::with_limits(sockets, QuicLimits::DEFAULT)
    }

    pub fn with_quic(quic: QuicLimits) -> Self {
        Self::with_limits(SocketLimits::DEFAULT, quic)
    }

    /// A node that accepts connections for so long after it was told to stop.
    pub fn leaving(lame_duck_ms: u64) -> Self {
        let plane = FakePlane::new();
        let mut config = FrontendConfig::new(SealKeys::own([7; 32]));
        (config.lame_duck_ms, config.drain_ms) = (lame_duck_ms, 20_000);
        let front = Frontend::new(plane.clone(), config).unwrap();
        Self { plane, front: Arc::new(front) }
    }

    fn with_limits(sockets: SocketLimits, quic: QuicLimits) -> Self {
        let plane = FakePlane::new();
        let mut config = FrontendConfig::new(SealKeys::own([7; 32]));
        config.max_body_bytes = 64 * 1024;
        config.sockets = sockets;
        config.quic = quic;
        let front = Frontend::new(plane.clone(), config).unwrap().with_schemas(Arc::new(Schemas));
        Self { plane, front: Arc::new(front) }
    }

    /// A second node with the same key.
    pub fn sibling(&self) -> Self {
        Self { plane: self.plane.clone(), front: Arc::new(self.alone()) }
    }

    /// Its front end, which knows no other node yet.
    pub fn alone(&self) -> Frontend<FakePlane> {
        Frontend::new(self.plane.clone(), FrontendConfig::new(SealKeys::own([7; 32]))).unwrap()
    }

    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<ResponseBody> {
        let mut request = Request::builder().method(method).uri(path);
        let mut has_host = false;
        for (name, value) in headers {
            has_host |= name.eq_ignore_ascii_case("host");
            // An empty value stands for a header that is left out.
            if !value.is_empty() {
                request = request.header(*name, *value);
            }
        }
        if !has_host {
            request = request.header("host", "127.0.0.1:8420");
        }
        let peer = Peer { address: None, transport: "http", is_secure: false, certificate: None };
        self.front.respond(request.body(Full::new(body.into())).unwrap(), peer).await
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Said {
        read(self.open(method, path, headers, body).await).await
    }

    /// POSTs to `/mcp`, with the headers that every client sends, overridden by `headers`.
    pub async fn post(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Said {
        self.send(Method::POST, "/mcp", &with_defaults(headers), body).await
    }

    /// A modern request with its mirroring headers.
    pub async fn modern(&self, method: &str, params: Value) -> Said {
        self.modern_as("token-alice", method, params).await
    }

    pub async fn modern_as(&self, token: &str, method: &str, params: Value) -> Said {
        let (headers, body) = modern_request(method, params);
        let bearer = format!("Bearer {token}");
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        headers.push(("authorization", &bearer));
        self.post(&headers, body).await
    }

    /// Opens a legacy session.
    pub async fn session(&self, token: &str) -> Session<'_> {
        let capabilities = json!({ "elicitation": {}, "roots": {} });
        let bearer = format!("Bearer {token}");
        let said = self
            .post(
                &[("authorization", &bearer)],
                json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                    "protocolVersion": LEGACY, "capabilities": capabilities,
                    "clientInfo": { "name": "test", "version": "1" } } })
                .to_string(),
            )
            .await;
        assert_eq!(said.status, StatusCode::OK, "{}", said.text);
        let id = said.header("mcp-session-id").to_owned();
        assert!(!id.is_empty());
        Session { world: self, bearer, id }
    }
}

/// A legacy client after `initialize`.
pub struct Session<'a> {
    pub world: &'a World,
    pub bearer: String,
    pub id: String,
}

impl Session<'_> {
    pub fn headers(&self) -> Vec<(&str, &str)> {
        vec![
            ("authorization", self.bearer.as_str()),
            ("mcp-session-id", self.id.as_str()),
            ("mcp-protocol-version", LEGACY),
        ]
    }

    pub async fn call(&self, method: &str, params: Value) -> Said {
        self.post(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })).await
    }

    pub async fn post(&self, message: Value) -> Said {
        self.world.post(&self.headers(), message.to_string()).await
    }

    /// POSTs and gives the response back unread.
    pub async fn begin(&self, message: Value) -> Response<ResponseBody> {
        let headers = self.headers();
        self.world.open(Method::POST, "/mcp", &with_defaults(&headers), message.to_string()).await
    }

    pub async fn get(&self, last_event: &str) -> Response<ResponseBody> {
        let mut headers = self.headers();
        headers.push(("accept", "text/event-stream"));
        headers.push(("last-event-id", last_event));
        self.world.open(Method::GET, "/mcp", &headers, "").await
    }
}

fn with_defaults<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = headers.to_vec();
    for (name, value) in [("content-type", "application/json"), ("accept", "application/json, text/event-stream")] {
        if !headers.iter().any(|(n, _)| *n == name) {
            all.push((name, value));
        }
    }
    all
}

/// Headers and body of a modern request.
pub fn modern_request(method: &str, mut params: Value) -> (Vec<(&'static str, String)>, String) {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
    });
    let given = params["_meta"].take();
    let mut all = meta;
    if let (Some(all), Some(given)) = (all.as_object_mut(), given.as_object()) {
        all.extend(given.clone());
    }
    params["_meta"] = all;
    let mut headers = vec![("mcp-protocol-version", MODERN.to_owned()), ("mcp-method", method.to_owned())];
    for member in ["name", "uri", "taskId"] {
        if let Some(name) = params[member].as_str() {
            headers.push(("mcp-name", name.to_owned()));
        }
    }
    let body = json!({ "jsonrpc": "2.0", "id": 9, "method": method, "params": params });
    (headers, body.to_string())
}

pub async fn read(response: Response<ResponseBody>) -> Said {
    let (parts, body) = response.into_parts();
    let bytes = tokio::time::timeout(Duration::from_secs(20), body.collect())
        .await
        .expect("the response ends")
        .unwrap()
        .to_bytes();
    Said { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// Reads events until one satisfies the predicate.
pub async fn read_until(body: &mut ResponseBody, mut is_it: impl FnMut(&Value) -> bool) -> (String, Value) {
    let mut text = String::new();
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(20), body.frame())
            .await
            .expect("an event comes")
            .expect("the stream is open")
            .unwrap();
        let data = frame.into_data().unwrap_or_default();
        text.push_str(std::str::from_utf8(&data).unwrap());
        let last = data_lines(&text).last().and_then(|d| serde_json::from_str::<Value>(d).ok());
        if let Some(found) = last.filter(|v| is_it(v)) {
            return (text, found);
        }
    }
}
