//! A WebSocket client as small as it can be: what the tests send is what goes over the wire.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        http::{HeaderValue, Request},
        protocol::CloseFrame,
    },
};

use crate::harness::{Dev, modern};

/// How long an answer may take on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    /// Messages that came while another was waited for.
    pub others: Vec<Value>,
}

/// The upgrade of a well-behaved client.
pub fn upgrade(dev: &Dev, path: &str) -> Request<()> {
    let url = format!("{}{path}", dev.info["ws"].as_str().unwrap());
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", HeaderValue::try_from(format!("Bearer {}", dev.token())).unwrap());
    headers.insert("sec-websocket-protocol", HeaderValue::from_static("mcp"));
    request
}

impl Socket {
    pub async fn open(dev: &Dev, path: &str) -> Self {
        Self::connect(upgrade(dev, path)).await
    }

    pub async fn connect(request: Request<()>) -> Self {
        let (stream, response) = connect_async(request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "mcp");
        Self { stream, next_id: 100, others: Vec::new() }
    }

    /// After `initialize` and `notifications/initialized`.
    pub async fn legacy(dev: &Dev, path: &str, capabilities: Value) -> Self {
        let mut socket = Self::open(dev, path).await;
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
                             "clientInfo": { "name": "blackbox", "version": "1" } });
        let answer = socket.request("initialize", params).await;
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        socket.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        socket
    }

    pub async fn frame(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    pub async fn send(&mut self, message: Value) {
        self.frame(Message::text(message.to_string())).await;
    }

    /// Sends a request; returns its id.
    pub async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        self.send(json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params })).await;
        self.next_id
    }

    /// The same in the modern era.
    pub async fn begin_modern(&mut self, method: &str, params: Value) -> u64 {
        let params = modern(method, params)["params"].take();
        self.begin(method, params).await
    }

    /// The next message; `Err`: the close frame, if there was one.
    pub async fn next(&mut self) -> Result<Value, Option<CloseFrame>> {
        loop {
            let frame = tokio::time::timeout(ANSWER_LIMIT, self.stream.next()).await.expect("nothing comes");
            match frame {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next message that satisfies `is_it`; those before it are kept in `others`.
    pub async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|close| panic!("the socket was closed: {close:?}"));
            if is_it(&message) {
                return message;
            }
            self.others.push(message);
        }
    }

    pub async fn answer(&mut self, id: u64) -> Value {
        self.until(|message| message["id"] == id && message.get("method").is_none()).await
    }

    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        self.answer(id).await
    }

    pub async fn modern(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin_modern(method, params).await;
        self.answer(id).await
    }

    /// Calls a tool in the modern era.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.modern("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Reads to the end; the close frame, as code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
                Err(None) => panic!("the socket ended without a close frame"),
            }
        }
    }
}
