//! A node with TLS and QUIC, and a small client of MCP over QUIC.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use provost_data_serve::{ClientCertificates, Doors, PlainRule, QuicLimits, ServerTls};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream,
    crypto::rustls::{HandshakeData, QuicClientConfig},
};
use rcgen::{CertifiedKey as Made, generate_simple_self_signed};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    sockets::{Served, serve_doors},
    world::{World, modern_request},
};

/// Long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const ALICE: &str = r#"{"authorization":"Bearer token-alice","endpoint":"/mcp"}"#;

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A node, and what its certificate is checked with.
pub struct SecureNode {
    pub served: Served,
    /// What it serves TLS with.
    pub tls: ServerTls,
    pub trusted: CertificateDer<'static>,
}

pub async fn serve(limits: QuicLimits) -> SecureNode {
    serve_with(limits, PlainRule::Served).await
}

pub async fn serve_with(limits: QuicLimits, plain: PlainRule) -> SecureNode {
    serve_for(limits, plain, None).await
}

pub async fn serve_for(limits: QuicLimits, plain: PlainRule, clients: Option<&ClientCertificates>) -> SecureNode {
    let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let pair = CertifiedKey::new(vec![cert.der().clone()], key);
    let tls = ServerTls::with_clients(Arc::new(Fixed(Arc::new(pair))), clients).unwrap();
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            break (tcp, udp);
        }
    };
    let doors = Doors { tcp, udp: Some(udp), tls: Some(tls.clone()), plain };
    let served = serve_doors(World::with_quic(limits), doors);
    SecureNode { served, tls, trusted: cert.der().clone() }
}

impl SecureNode {
    /// Client-side TLS that trusts the node.
    pub fn tls(&self, alpn: &[u8]) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_early_data = true;
        config
    }

    pub fn endpoint(&self, alpn: &[u8]) -> Endpoint {
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let crypto = QuicClientConfig::try_from(self.tls(alpn)).unwrap();
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
        endpoint
    }

    pub async fn connect(&self) -> Client {
        Client::connect(&self.endpoint(b"mcp/1"), self).await
    }
}

/// A connection of `mcp/1`.
pub struct Client {
    pub connection: Connection,
    _endpoint: Endpoint,
}

impl Client {
    pub async fn connect(endpoint: &Endpoint, node: &SecureNode) -> Self {
        let connecting = endpoint.connect(node.served.address, "localhost").unwrap();
        let connection = tokio::time::timeout(PATIENCE, connecting).await.expect("no handshake").unwrap();
        let data = connection.handshake_data().unwrap().downcast::<HandshakeData>().unwrap();
        assert_eq!(data.protocol.as_deref(), Some(&b"mcp/1"[..]));
        Self { connection, _endpoint: endpoint.clone() }
    }

    /// Sends lines on a stream of their own, which stays open.
    pub async fn open(&self, lines: &[&str]) -> Stream {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        for line in lines {
            let line = format!("{line}\n");
            match send.write_all(line.as_bytes()).await {
                // Who refuses a stream need not read all of it; the answer says why.
                Err(quinn::WriteError::Stopped(_)) => break,
                written => written.unwrap(),
            }
        }
        Stream { send, recv, buffer: Vec::new() }
    }

    /// The lines that answer one message of alice.
    pub async fn ask(&self, message: &Value) -> Vec<Value> {
        let mut stream = self.open(&[ALICE, &message.to_string()]).await;
        stream.send.finish().unwrap();
        stream.rest().await
    }

    /// The answer to a modern request of alice.
    pub async fn modern(&self, method: &str, params: Value) -> Value {
        let mut said = self.ask(&modern(method, params)).await;
        said.pop().expect("an answer")
    }
}

/// A modern request, as a message.
pub fn modern(method: &str, params: Value) -> Value {
    serde_json::from_str(&modern_request(method, params).1).unwrap()
}

/// A modern call, as a line.
pub fn call(tool: &str) -> String {
    modern("tools/call", json!({ "name": tool, "arguments": {} })).to_string()
}

pub struct Stream {
    pub send: SendStream,
    pub recv: RecvStream,
    buffer: Vec<u8>,
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Finished,
    Reset(u64),
    Lost,
}

impl Stream {
    /// The next line, or the end.
    pub async fn line(&mut self) -> Result<Value, End> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(serde_json::from_slice(&line).unwrap());
            }
            let read = tokio::time::timeout(PATIENCE, self.recv.read_chunk(64 * 1024, true)).await;
            match read.expect("nothing comes") {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    assert!(self.buffer.is_empty(), "half a line: {:?}", String::from_utf8_lossy(&self.buffer));
                    return Err(End::Finished);
                }
                Err(quinn::ReadError::Reset(code)) => return Err(End::Reset(code.into_inner())),
                Err(_) => return Err(End::Lost),
            }
        }
    }

    /// Lines to the end, which must be FIN.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut said = Vec::new();
        loop {
            match self.line().await {
                Ok(line) => said.push(line),
                Err(end) => {
                    assert_eq!(end, End::Finished, "after {said:?}");
                    return said;
                }
            }
        }
    }
}

/// Our stable code in an error.
pub fn pv(message: &Value) -> &str {
    message["error"]["data"]["code"].as_str().unwrap_or_default()
}
