//! Authorities and revocation lists that change while the node serves.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use provost_data_serve::{PlainRule, QuicLimits};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    certificates::{ALICE, Authority, endpoint, post},
    quic_client::{Client, PATIENCE, SecureNode, call, serve_for},
    world::modern_request,
};

/// Serial numbers.
const GOOD: u64 = 8;
const BAD: u64 = 7;
/// Years.
const PAST: i32 = 2025;
const FUTURE: i32 = 2400;

/// One client on every transport, connected.
struct Everywhere {
    http: TlsStream<TcpStream>,
    socket: WebSocketStream<TlsStream<TcpStream>>,
    quic: Client,
    h3: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

async fn tls(node: &SecureNode, config: rustls::ClientConfig) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(node.served.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

impl Everywhere {
    async fn connect(authority: &Authority, node: &SecureNode, serial: u64) -> Self {
        let config = |alpn: &[u8]| authority.client_of(node, ALICE, alpn, serial);
        let mut http = tls(node, config(b"http/1.1")).await;
        assert_eq!(ask(&mut http).await.unwrap(), "HTTP/1.1 200 OK");
        let mut request = "wss://localhost/mcp".into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mcp"));
        let socket = client_async(request, tls(node, config(b"http/1.1")).await).await.unwrap().0;
        let endpoints = [endpoint(config(b"mcp/1")), endpoint(config(b"h3"))];
        let quic = Client::connect(&endpoints[0], node).await;
        assert!(quic.open(&["{}", &call("echo")]).await.rest().await[0]["result"].is_object());
        let h3 = endpoints[1].connect(node.served.address, "localhost").unwrap().await.unwrap();
        Self { http, socket, quic, h3, _endpoints: endpoints }
    }

    /// Everything still works.
    async fn works(&mut self) {
        assert_eq!(ask(&mut self.http).await.unwrap(), "HTTP/1.1 200 OK");
        let (_, body) = modern_request("tools/call", json!({ "name": "echo", "arguments": {} }));
        futures::SinkExt::send(&mut self.socket, Message::text(body)).await.unwrap();
        let said = timeout(PATIENCE, self.socket.next()).await.expect("an answer").unwrap().unwrap();
        assert!(said.to_text().unwrap().contains("result"), "{said}");
        assert!(self.quic.open(&["{}", &call("echo")]).await.rest().await[0]["result"].is_object());
        assert_eq!(self.h3.close_reason(), None);
    }

    /// The node ends all of it.
    async fn ends(mut self) {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.http.read_to_end(&mut rest)).await;
        assert!(read.is_ok() && rest.is_empty(), "HTTP stays open");
        let end = timeout(PATIENCE, async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
        assert!(end.is_ok(), "the socket stays open");
        for (what, connection) in [("mcp/1", &self.quic.connection), ("h3", &self.h3)] {
            let end = timeout(PATIENCE, connection.closed()).await;
            let end = end.unwrap_or_else(|_| panic!("{what} stays open")).to_string();
            assert!(end.contains("PV-AUTH-CERTIFICATE"), "{what}: {end}");
        }
    }
}

/// A call on a connection that stays; the status line.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    let (headers, body) = modern_request("tools/call", json!({ "name": "echo", "arguments": {} }));
    let mut request = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                       accept: application/json\r\n"
        .to_owned();
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await?;
    let mut said = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer")?;
        said.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&said).into_owned();
        let status = text.lines().next().unwrap_or_default().to_owned();
        let length = text.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let rest = text.split_once("\r\n\r\n").map(|(_, rest)| rest.len());
        if count == 0 || length.is_some_and(|length: usize| rest.is_some_and(|rest| rest >= length)) {
            return Ok(status);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_cut_off_everywhere_and_others_notice_nothing() {
    let authority = Authority::new();
    let node = serve_for(QuicLimits::DEFAULT, PlainRule::Refused, Some(&authority.listing(&[], FUTURE))).await;
    let mut good = Everywhere::connect(&authority, &node, GOOD).await;
    let bad = Everywhere::connect(&authority, &node, BAD).await;
    let mut plain = tls(&node, node.tls(b"http/1.1")).await;
    assert_eq!(ask(&mut plain).await.unwrap(), "HTTP/1.1 200 OK");

    node.tls.trust(&authority.listing(&[BAD], FUTURE)).unwrap();
    bad.ends().await;
    good.works().await;
    assert_eq!(ask(&mut plain).await.unwrap(), "HTTP/1.1 200 OK", "who shows none has none to be revoked");
    let http = |serial| authority.client_of(&node, ALICE, b"http/1.1", serial);
    assert!(post(&node, http(BAD), "").await.is_err());
    assert_eq!(post(&node, http(GOOD), "").await.unwrap(), "HTTP/1.1 200 OK");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_before_does_not_pass_the_new_list() {
    let authority = Authority::new();
    let node = serve_for(QuicLimits::DEFAULT, PlainRule::Refused, Some(&authority.listing(&[], FUTURE))).await;
    // The configuration keeps the tickets.
    let (tcp, udp) = (
        authority.client_of(&node, ALICE, b"http/1.1", BAD),
        endpoint(authority.client_of(&node, ALICE, b"mcp/1", BAD)),
    );
    assert_eq!(post(&node, tcp.clone(), "").await.unwrap(), "HTTP/1.1 200 OK");
    let first = Client::connect(&udp, &node).await;
    assert!(first.open(&["{}", &call("echo")]).await.rest().await[0]["result"].is_object());
    node.tls.trust(&authority.listing(&[BAD], FUTURE)).unwrap();
    assert!(timeout(PATIENCE, first.connection.closed()).await.is_ok());
    assert!(post(&node, tcp, "").await.is_err(), "a ticket of before was good");
    let connecting = udp.connect(node.served.address, "localhost").unwrap();
    if let Ok(connection) = connecting.await {
        assert!(timeout(PATIENCE, connection.closed()).await.is_ok(), "a ticket of before was good");
    }
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_list_that_has_ended_nobody_new_comes_in() {
    let (authority, unlisted) = (Authority::new(), Authority::new());
    let node = serve_for(QuicLimits::DEFAULT, PlainRule::Refused, Some(&authority.trusted(false))).await;
    let mut inside = Everywhere::connect(&authority, &node, GOOD).await;
    let ended = authority.listing(&[], PAST);
    assert!(ended.lists_end().unwrap() < std::time::SystemTime::now());
    node.tls.trust(&ended).unwrap();
    let http = || authority.client_of(&node, ALICE, b"http/1.1", GOOD);
    assert!(post(&node, http(), "").await.is_err());
    assert_eq!(post(&node, node.tls(b"http/1.1"), "").await.unwrap(), "HTTP/1.1 200 OK", "without a certificate");
    // Those inside stay; time to be cut off, were it so.
    tokio::time::sleep(Duration::from_millis(300)).await;
    inside.works().await;

    // An authority without a list: of its certificates nothing is known.
    let mut both = authority.listing(&[], FUTURE);
    let mut authorities = (*both.authorities).clone();
    authorities.extend(unlisted.trusted(false).authorities.roots.iter().cloned());
    both.authorities = Arc::new(authorities);
    node.tls.trust(&both).unwrap();
    assert_eq!(post(&node, http(), "").await.unwrap(), "HTTP/1.1 200 OK");
    assert!(post(&node, unlisted.client(&node, ALICE, b"http/1.1"), "").await.is_err());

    // An authority that is not trusted any more takes its clients with it.
    node.tls.trust(&unlisted.trusted(false)).unwrap();
    inside.ends().await;
    node.served.stop().await;
}
