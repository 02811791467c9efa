//! One control-plane node, three that serve calls, and a legacy client that may use any of them.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::{
    harness::{modern, post},
    processes::Fleet,
    restore::apply,
};

/// The nodes that serve calls.
pub const NODES: [&str; 3] = ["dp-1", "dp-2", "dp-3"];
/// Patience with one answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const LEGACY: &str = "2025-11-25";

/// The nodes run, take calls of `bot` (whose token is given) and know each other. `documents` name the
/// plugin `up`, whose tool `probe` must answer.
pub fn scene(cluster: &str, documents: &str, probe: &str) -> (Fleet, String) {
    let mut fleet = Fleet::new(cluster);
    fleet.add("cp-1", "control-plane+audit-log");
    for node in NODES {
        fleet.add(node, "data-plane");
    }
    fleet.init("cp-1");
    for node in ["cp-1", "dp-1", "dp-2", "dp-3"] {
        fleet.start(node);
    }
    fleet.agreed(&["cp-1"]);
    fleet.until_audit_voters("cp-1", 1);
    apply(&fleet, "cp-1", "up.yaml", documents);
    let token = fleet.ok("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
    for node in NODES {
        ready(&fleet, node, &token, probe);
    }
    for node in NODES {
        fleet.until("it reaches the others", |f| reached(&f.servers[node].log()) >= NODES.len() - 1);
    }
    (fleet, token)
}

/// How many others the log of a node says that it reaches.
fn reached(log: &str) -> usize {
    log.lines().filter(|line| line.contains("another data-plane node is reached")).count()
}

/// Waits until the node takes calls.
pub fn ready(fleet: &Fleet, node: &str, token: &str, probe: &str) {
    let http = fleet.servers[node].http;
    fleet.until("it listens", |_| std::net::TcpStream::connect(http).is_ok());
    let (url, body) = (fleet.servers[node].mcp(), modern("tools/call", json!({ "name": probe, "arguments": {} })));
    fleet.until("calls are taken", |_| {
        let (url, token, body) = (url.clone(), token.to_owned(), body.clone());
        let asked = std::thread::spawn(move || post(&url, &token, &body)).join();
        asked.is_ok_and(|answer| answer.1["result"]["content"].is_array())
    });
}

pub fn addresses(fleet: &Fleet) -> Vec<SocketAddr> {
    NODES.iter().map(|node| fleet.servers[*node].http).collect()
}

/// A legacy client that keeps its session and forgets its connections.
pub struct LegacyClient {
    http: reqwest::Client,
    token: String,
    pub session: String,
}

impl LegacyClient {
    /// Opens a session at `url`.
    pub async fn open(url: &str, token: &str, capabilities: Value) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let mut client = Self { http, token: token.to_owned(), session: String::new() };
        let params = json!({ "protocolVersion": LEGACY, "capabilities": capabilities,
            "clientInfo": { "name": "test", "version": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let response = client.begin(url, &body).await;
        assert!(response.status().is_success(), "{}", response.status());
        client.session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        client.tell(url, json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        client
    }

    /// Sends a message and gives the response back unread.
    pub async fn begin(&self, url: &str, body: &Value) -> reqwest::Response {
        let request = self.http.post(url).json(body).header("accept", "application/json, text/event-stream");
        self.with_headers(request).send().await.unwrap()
    }

    /// Takes a stream up after an event, or opens one.
    pub async fn listen(&self, url: &str, last_event: Option<&str>) -> reqwest::Response {
        let mut request = self.http.get(url).header("accept", "text/event-stream");
        if let Some(last) = last_event {
            request = request.header("last-event-id", last);
        }
        self.with_headers(request).send().await.unwrap()
    }

    pub async fn end(&self, url: &str) -> u16 {
        self.with_headers(self.http.delete(url)).send().await.unwrap().status().as_u16()
    }

    fn with_headers(&self, mut request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request = request.bearer_auth(&self.token).timeout(PATIENCE);
        if self.session.is_empty() {
            return request;
        }
        request.header("mcp-session-id", &self.session).header("mcp-protocol-version", LEGACY)
    }

    /// Sends what has no answer.
    pub async fn tell(&self, url: &str, body: Value) {
        let response = self.begin(url, &body).await;
        assert_eq!(response.status().as_u16(), 202, "{body}");
    }

    /// Calls a tool; the whole answer.
    pub async fn call(&self, url: &str, tool: &str, arguments: Value) -> Value {
        self.ask(url, "tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// The text that a tool answers.
    pub async fn text(&self, url: &str, tool: &str) -> String {
        let answer = self.call(url, tool, json!({})).await;
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("no text from {tool}: {answer}")).to_owned()
    }

    pub async fn ask(&self, url: &str, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let text = self.begin(url, &body).await.text().await.unwrap();
        answer_in(&text)
    }
}

/// The JSON body, or the last event of a stream.
pub fn answer_in(text: &str) -> Value {
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(last.unwrap_or(text)).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Reads a stream until an event satisfies the test; the event's id and what it says.
pub async fn event(stream: &mut reqwest::Response, mut is_it: impl FnMut(&Value) -> bool) -> (String, Value) {
    let mut text = String::new();
    let mut id = String::new();
    loop {
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("an event comes");
        let chunk = chunk.unwrap().unwrap_or_else(|| panic!("the stream ended: {text}"));
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some((line, rest)) = text.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            text = rest;
            if let Some(given) = line.strip_prefix("id: ") {
                id = given.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ")
                && let Ok(said) = serde_json::from_str::<Value>(data)
                && is_it(&said)
            {
                return (id, said);
            }
        }
    }
}
