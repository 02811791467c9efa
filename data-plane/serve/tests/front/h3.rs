//! HTTP/3: the same service, over QUIC.

use std::future::poll_fn;

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use http::{Method, Request, StatusCode};
use provost_data_serve::QuicLimits;
use provost_types::{CallStatus, Phase};
use serde_json::{Value, json};

use crate::{
    quic_client::{PATIENCE, SecureNode, serve},
    world::modern_request,
};

type Requests = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;
type Driver = h3::client::Connection<h3_quinn::Connection, Bytes>;
type Exchange = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

struct Client {
    requests: Requests,
    driving: tokio::task::JoinHandle<()>,
    _endpoint: quinn::Endpoint,
}

async fn connect(node: &SecureNode) -> Client {
    let (client, mut driver, _) = connect_deaf(node).await;
    let driving = tokio::spawn(async move {
        let _ = poll_fn(|cx| driver.poll_close(cx)).await;
    });
    Client { driving, ..client }
}

/// A client that hears no GOAWAY: nobody drives its connection.
async fn connect_deaf(node: &SecureNode) -> (Client, Driver, quinn::Connection) {
    let endpoint = node.endpoint(b"h3");
    let connection = endpoint.connect(node.served.address, "localhost").unwrap().await.unwrap();
    let (driver, requests) = h3::client::new(h3_quinn::Connection::new(connection.clone())).await.unwrap();
    let driving = tokio::spawn(async {});
    (Client { requests, driving, _endpoint: endpoint }, driver, connection)
}

impl Client {
    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Exchange {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Exchange, StreamError> {
        let mut request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut exchange = self.requests.send_request(request.body(()).unwrap()).await?;
        // A request that is refused by its head is not read to its end.
        let _ = exchange.send_data(Bytes::copy_from_slice(body.as_bytes())).await;
        let _ = exchange.finish().await;
        Ok(exchange)
    }

    async fn call(&mut self, tool: &str) -> Exchange {
        self.try_call(tool).await.unwrap()
    }

    async fn try_call(&mut self, tool: &str) -> Result<Exchange, StreamError> {
        let (headers, body) = modern_request("tools/call", json!({ "name": tool, "arguments": {} }));
        let mut all = vec![
            ("authorization", "Bearer token-alice"),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        all.extend(headers.iter().map(|(n, v)| (*n, v.as_str())));
        self.try_send(Method::POST, "/mcp", &all, &body).await
    }
}

async fn status(exchange: &mut Exchange) -> StatusCode {
    tokio::time::timeout(PATIENCE, exchange.recv_response()).await.expect("a response").unwrap().status()
}

async fn body(exchange: &mut Exchange) -> String {
    let mut said = Vec::new();
    while let Some(mut data) = tokio::time::timeout(PATIENCE, exchange.recv_data()).await.expect("data").unwrap() {
        said.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http3_is_the_same_service() {
    let node = serve(QuicLimits::DEFAULT).await;
    let mut client = connect(&node).await;
    let mut answered = client.call("echo").await;
    assert_eq!(status(&mut answered).await, StatusCode::OK);
    let said: Value = serde_json::from_str(&body(&mut answered).await).unwrap();
    assert_eq!(said["id"], 9, "{said}");
    let event = node.served.wait_for(Phase::Outcome, "echo").await;
    assert_eq!((event.what.transport.as_str(), event.status), ("h3", Some(CallStatus::Ok)));
    let table: [(Method, &str, &[(&str, &str)], &str, u16); 7] = [
        (Method::GET, "/healthz", &[], "", 200),
        (Method::GET, "/nothing", &[], "", 404),
        (Method::GET, "/.well-known/oauth-protected-resource/mcp", &[], "", 200),
        (Method::PUT, "/mcp", &[], "", 405),
        (Method::POST, "/mcp", &[("content-type", "text/plain")], "{}", 415),
        (Method::GET, "/v1/models", &[("authorization", "Bearer x")], "", 401),
        (Method::POST, "/mcp", &[("origin", "https://evil.example.com")], "{}", 403),
    ];
    for (method, path, headers, sent, expect) in table {
        let mut exchange = client.send(method.clone(), path, headers, sent).await;
        assert_eq!(status(&mut exchange).await.as_u16(), expect, "{method} {path} {headers:?}");
        let said = body(&mut exchange).await;
        if path.starts_with("/.well-known") {
            assert!(said.contains("https://localhost/mcp"), "{said}");
        }
    }
    let large = "x".repeat(70_000);
    let mut exchange = client.send(Method::POST, "/mcp", &[("content-type", "application/json")], &large).await;
    assert_eq!(status(&mut exchange).await, StatusCode::PAYLOAD_TOO_LARGE);
    drop(client.requests);
    client.driving.abort();
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_has_cancelled() {
    let node = serve(QuicLimits::DEFAULT).await;
    let mut client = connect(&node).await;
    let mut exchange = client.call("wait").await;
    node.served.wait_for(Phase::Intent, "wait").await;
    exchange.stop_sending(Code::H3_REQUEST_CANCELLED);
    let outcome = node.served.wait_for(Phase::Outcome, "wait").await;
    assert_eq!(outcome.status, Some(CallStatus::Cancelled));
    // The connection is as good as before.
    let mut answered = client.call("echo").await;
    assert_eq!(status(&mut answered).await, StatusCode::OK);
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_as_they_are_and_a_drain_ends_them() {
    let node = serve(QuicLimits::DEFAULT).await;
    let mut client = connect(&node).await;
    let (headers, sent) =
        modern_request("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let mut all = vec![
        ("authorization", "Bearer token-alice"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    all.extend(headers.iter().map(|(n, v)| (*n, v.as_str())));
    let mut exchange = client.send(Method::POST, "/mcp", &all, &sent).await;
    let head = tokio::time::timeout(PATIENCE, exchange.recv_response()).await.unwrap().unwrap();
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    let mut first = tokio::time::timeout(PATIENCE, exchange.recv_data()).await.unwrap().unwrap().unwrap();
    let first = first.copy_to_bytes(first.remaining());
    assert!(String::from_utf8_lossy(&first).contains("acknowledged"), "{first:?}");
    node.served.begin_stop();
    assert!(body(&mut exchange).await.contains("\"result\""));
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crosses_the_goaway_is_rejected_and_the_end_says_that_all_else_was_answered() {
    let node = serve(QuicLimits::DEFAULT).await;
    let (mut client, _driver, connection) = connect_deaf(&node).await;
    let mut taken = client.call("gate").await;
    node.served.wait_for(Phase::Intent, "gate").await;
    node.served.begin_stop();
    // More than one: the first after the last that was taken is not served either. Until the node has said that
    // it goes, requests are.
    let mut rejected = 0;
    let began = std::time::Instant::now();
    while rejected < 3 {
        assert!(began.elapsed() < PATIENCE, "nothing is rejected");
        // It may be refused before all of it has left.
        let fate = async { client.try_call("echo").await?.recv_response().await };
        match tokio::time::timeout(PATIENCE, fate).await.expect("a fate") {
            Ok(response) => assert!(response.status() == StatusCode::OK && rejected == 0),
            Err(StreamError::RemoteTerminate { code: Code::H3_REQUEST_REJECTED, .. }) => rejected += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    let _ = node.served.world.plane.changes.send("go");
    assert_eq!(status(&mut taken).await, StatusCode::OK);
    assert!(body(&mut taken).await.contains("\"result\""));
    let end = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("an end");
    let quinn::ConnectionError::ApplicationClosed(end) = end else { panic!("{end:?}") };
    assert_eq!(u64::from(end.error_code), Code::H3_NO_ERROR.value());
    assert!(end.reason.starts_with(b"PV-QUIC-DRAINING"), "{end:?}");
    node.served.stop().await;
}
