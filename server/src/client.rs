//! A small MCP client (2026-07-28, Streamable HTTP) for the commands of this binary.

use anyhow::Context;
use serde_json::{Value, json};

use crate::failure::Failure;

const VERSION: &str = "2026-07-28";

/// One MCP endpoint.
pub struct McpClient {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl McpClient {
    /// A client of `url`.
    pub fn new(url: String, token: Option<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("PV-CLI-HTTP: the HTTP client cannot be built")?;
        Ok(Self { http, url, token })
    }

    /// Sends one request and returns its result. `on_notification` sees what comes before it.
    pub async fn request(
        &self,
        method: &str,
        mut params: Value,
        name: Option<&str>,
        mut on_notification: impl FnMut(&str, &Value),
    ) -> anyhow::Result<Value> {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo":
                { "name": "provost-cli", "version": env!("CARGO_PKG_VERSION") },
            "io.modelcontextprotocol/clientCapabilities": {},
            "progressToken": "cli",
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut request = self
            .http
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", VERSION)
            .header("mcp-method", method)
            .json(&body);
        if let Some(name) = name {
            request = request.header("mcp-name", header_value(name));
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|cause| {
            Failure::new(
                "PV-CLI-UNREACHABLE",
                format!("{} cannot be reached: {cause}", self.url),
                "is the server running? `provost dev` starts one",
            )
        })?;
        let status = response.status();
        let is_stream = response
            .headers()
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with("text/event-stream"));
        if is_stream {
            return read_stream(response, &mut on_notification).await;
        }
        let text = response.text().await.context("PV-CLI-ANSWER: the answer broke off")?;
        let message: Value = serde_json::from_str(&text).map_err(|_| {
            Failure::new(
                "PV-CLI-ANSWER",
                format!("{} answered HTTP {status} with something that is not JSON", self.url),
                "is this an MCP endpoint? it usually ends in /mcp",
            )
        })?;
        outcome(message)
    }
}

/// Plain where a header may carry it, base64-wrapped otherwise (2026-07-28, Streamable HTTP).
fn header_value(name: &str) -> String {
    use base64::Engine;
    if !name.is_empty() && name.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        name.to_owned()
    } else {
        format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(name))
    }
}

async fn read_stream(
    mut response: reqwest::Response,
    on_notification: &mut impl FnMut(&str, &Value),
) -> anyhow::Result<Value> {
    let mut buffer = Vec::new();
    while let Some(chunk) = response.chunk().await.context("PV-CLI-ANSWER: the stream broke off")? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let Ok(message) = serde_json::from_slice::<Value>(data) else { continue };
            match message.get("method").and_then(Value::as_str) {
                Some(method) => on_notification(method, &message["params"]),
                None => return outcome(message),
            }
        }
    }
    Err(Failure::new(
        "PV-CLI-ANSWER",
        "the stream ended without an answer",
        "try again; `provost audit query` says whether the call ran",
    )
    .into())
}

fn outcome(mut message: Value) -> anyhow::Result<Value> {
    if let Some(error) = message.get("error") {
        let code = error["data"]["code"].as_str().unwrap_or("PV-RPC");
        let text = error["message"].as_str().unwrap_or("the server gave no message");
        let hint = match code {
            "PV-POLICY-DENIED" => Some("`provost audit query --status denied` shows the record".to_owned()),
            _ => None,
        };
        return Err(
            Failure { code: code.to_owned(), message: format!("{text} (JSON-RPC {})", error["code"]), hint }.into()
        );
    }
    Ok(message["result"].take())
}
