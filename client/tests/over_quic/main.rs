//! The client against a server that is written from `docs/transports.md` alone: what each side of bare QUIC
//! sends; in `http3`, what that looks like.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod again;
mod http3;
mod server;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use provost_client::{
    Client, ClientError, Connector, Endpoint, EraChoice, Handler, Identity, Incoming, Lane, Link, LinkError, Options,
    Outgoing, Transport,
};
use provost_mcp::{Era, JsonLimits, RawJson, RawObject, RequestId, RpcError};
use quinn::{RecvStream, SendStream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::server::Server;

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

async fn line(stream: &mut RecvStream) -> Option<Value> {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).await.unwrap() == Some(1) && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    (!text.is_empty()).then(|| serde_json::from_slice(&text).unwrap())
}

async fn say(stream: &mut SendStream, message: Value) {
    stream.write_all(format!("{message}\n").as_bytes()).await.unwrap();
}

fn request(id: u32, method: &str, params: Value) -> Outgoing {
    let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
    Outgoing::parse(text.into(), &JsonLimits::REQUEST).unwrap()
}

fn modern() -> Value {
    json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} } })
}

async fn next(link: &mut Link) -> Incoming {
    tokio::time::timeout(LIMIT, link.receiver.next()).await.expect("nothing comes").expect("the link ended silently")
}

async fn message(link: &mut Link) -> Value {
    match next(link).await {
        Incoming::Message(bytes) => serde_json::from_slice(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_message_has_a_stream_with_a_head_and_answers_come_as_they_are_ready() {
    let server = Server::new(b"mcp/1");
    let connector = server.connector(&format!("quic://127.0.0.1:{}/mcp/up", server.port()), Transport::Quic);
    let serving = tokio::spawn(async move {
        let connection = server.accept().await;
        let (mut first, mut from_first) = connection.accept_bi().await.unwrap();
        let head = line(&mut from_first).await.unwrap();
        assert_eq!(head, json!({ "authorization": "Bearer pv_secret", "endpoint": "/mcp/up" }));
        let asked = line(&mut from_first).await.unwrap();
        assert_eq!((&asked["id"], &asked["method"]), (&json!(1), &json!("tools/call")));
        assert_eq!(line(&mut from_first).await, None, "a modern request has no more to say");
        let (mut second, mut from_second) = connection.accept_bi().await.unwrap();
        line(&mut from_second).await.unwrap();
        line(&mut from_second).await.unwrap();
        say(&mut second, json!({ "jsonrpc": "2.0", "id": 2, "result": { "n": 2 } })).await;
        second.finish().unwrap();
        say(&mut first, json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} })).await;
        // The end of the stream ends the last line too.
        first.write_all(br#"{"jsonrpc":"2.0","id":1,"result":{"n":1}}"#).await.unwrap();
        first.finish().unwrap();
        connection.closed().await;
    });
    let mut link = Link::open(&connector).await.unwrap();
    link.sender.send(request(1, "tools/call", modern())).await.unwrap();
    link.sender.send(request(2, "tools/list", modern())).await.unwrap();
    assert_eq!(message(&mut link).await["result"]["n"], 2);
    assert_eq!(message(&mut link).await["method"], "notifications/progress");
    assert_eq!(message(&mut link).await["result"]["n"], 1);
    drop((link, connector));
    tokio::time::timeout(LIMIT, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_cancelled_request_resets_its_stream_and_a_closed_connection_says_why() {
    let server = Server::new(b"mcp/1");
    let connector = server.quic();
    let (arrived, has_arrived) = tokio::sync::oneshot::channel();
    let serving = tokio::spawn(async move {
        let connection = server.accept().await;
        let (mut send, mut receive) = connection.accept_bi().await.unwrap();
        line(&mut receive).await.unwrap();
        line(&mut receive).await.unwrap();
        arrived.send(()).unwrap();
        let code = tokio::time::timeout(LIMIT, send.stopped()).await.unwrap().unwrap();
        assert_eq!(code.map(u64::from), Some(1), "STOP_SENDING with the code of a cancellation");
        let _ = send.reset(0u32.into());
        connection.close(2u32.into(), b"PV-QUIC-DRAINING: the node shuts down");
        server.endpoint.wait_idle().await;
    });
    let mut link = Link::open(&connector).await.unwrap();
    link.sender.send(request(1, "tools/call", modern())).await.unwrap();
    tokio::time::timeout(LIMIT, has_arrived).await.unwrap().unwrap();
    let id = RequestId(RawJson::from(json!(1)));
    link.sender.send(Outgoing::cancelled(&id, "no")).await.unwrap();
    match next(&mut link).await {
        Incoming::Closed(LinkError::NotTaken(cause)) => assert!(cause.contains("PV-QUIC-DRAINING"), "{cause}"),
        other => panic!("{other:?}"),
    }
    tokio::time::timeout(LIMIT, serving).await.unwrap().unwrap();
}

struct Answers(mpsc::UnboundedSender<String>);

impl Handler for Answers {
    fn request(&self, method: String, _: Option<RawJson>) -> BoxFuture<'static, Result<RawJson, RpcError>> {
        let _ = self.0.send(method);
        Box::pin(async { Ok(RawJson::from(json!({ "action": "accept" }))) })
    }

    fn notification(&self, method: &str, _: Option<&RawJson>) {
        let _ = self.0.send(method.to_owned());
    }
}

/// Two lines, and what a legacy server makes of them.
async fn serve_legacy(mut send: SendStream, mut receive: RecvStream) {
    line(&mut receive).await.unwrap();
    let asked = line(&mut receive).await.unwrap();
    let id = asked["id"].clone();
    match asked["method"].as_str().unwrap() {
        "initialize" => {
            let result = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {} });
            say(&mut send, json!({ "jsonrpc": "2.0", "id": id, "result": result })).await;
        }
        "notifications/initialized" => {
            say(&mut send, json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })).await;
            // This stream stays open.
            let _ = send.stopped().await;
            return;
        }
        "tools/call" => {
            let ask = json!({ "jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {} });
            say(&mut send, ask).await;
            let answer = line(&mut receive).await.unwrap();
            say(&mut send, json!({ "jsonrpc": "2.0", "id": id, "result": { "told": answer } })).await;
        }
        other => {
            let error = json!({ "code": -32601, "message": format!("no {other} here") });
            say(&mut send, json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
        }
    }
    send.finish().unwrap();
    let _ = send.stopped().await;
}

#[tokio::test]
async fn a_legacy_server_asks_on_the_stream_of_the_call() {
    let server = Server::new(b"mcp/1");
    let connector = server.quic();
    tokio::spawn(async move {
        let connection = server.accept().await;
        while let Ok((send, receive)) = connection.accept_bi().await {
            tokio::spawn(serve_legacy(send, receive));
        }
    });
    let (seen, mut saw) = mpsc::unbounded_channel();
    let capabilities = RawJson::from(json!({ "elicitation": {} }));
    let identity = Identity { name: "test", version: "1", capabilities };
    let client = Client::connect(&connector, identity, Arc::new(Answers(seen)), EraChoice::Auto).await.unwrap();
    assert_eq!(client.facts().era, Era::Legacy);
    assert_eq!(saw.recv().await.unwrap(), "notifications/tools/list_changed");
    let result = client.request("tools/call", RawObject::new(), None, Some(LIMIT)).await.unwrap();
    assert_eq!(saw.recv().await.unwrap(), "elicitation/create");
    let told: Value = result.parse().unwrap();
    assert_eq!(told["told"], json!({ "jsonrpc": "2.0", "id": "q", "result": { "action": "accept" } }));
    let refused = client.request("tools/list", RawObject::new(), None, Some(LIMIT)).await.unwrap_err();
    assert!(matches!(refused, ClientError::Rpc(error) if error.code == RpcError::METHOD_NOT_FOUND));
}

#[tokio::test]
async fn whom_the_authority_did_not_sign_is_not_spoken_to() {
    let (server, other) = (Server::new(b"mcp/1"), Server::new(b"mcp/1"));
    let endpoint = Endpoint::parse(&format!("quic://127.0.0.1:{}", server.port()), None).unwrap();
    let options = Options { ca: Some(other.ca.clone()), ..Options::default() };
    let connector = Connector::new(endpoint, options).unwrap();
    tokio::spawn(async move { server.endpoint.accept().await.unwrap().await });
    let error = Link::open(&connector).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, LinkError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_lane_over_quic_makes_one_call_after_another() {
    let server = Server::new(b"mcp/1");
    let connector = server.quic();
    tokio::spawn(async move {
        let connection = server.accept().await;
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            line(&mut receive).await.unwrap();
            let asked = line(&mut receive).await.unwrap();
            say(&mut send, json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {} })).await;
            send.finish().unwrap();
        }
    });
    let mut lane = Lane::open(&connector).await.unwrap();
    for number in 1..=3 {
        let id = RequestId(RawJson::from(json!(number)));
        let call = request(number, "tools/call", modern());
        let answer = lane.call(&http::HeaderMap::new(), call.body().clone(), &id).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["id"], number);
        assert!(lane.is_open());
    }
}
