//! A small client of MCP over QUIC, on quinn.

use std::{sync::Arc, time::Duration};

use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::{Value, json};

use crate::harness::{Dev, modern};

/// The longest wait for something to be said.
const PATIENCE: Duration = Duration::from_secs(60);

/// TLS that trusts what `dev` names as its CA.
pub fn tls(dev: &Dev, alpn: &[u8]) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(dev.info["ca"].as_str().unwrap()).unwrap();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// A connection to a running `provost dev`.
pub struct Quic {
    pub connection: Connection,
    token: String,
    _endpoint: Endpoint,
}

impl Quic {
    pub async fn connect(dev: &Dev) -> Self {
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let crypto = QuicClientConfig::try_from(tls(dev, b"mcp/1")).unwrap();
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
        let address = dev.info["quic"].as_str().unwrap().parse().unwrap();
        let connection = endpoint.connect(address, "127.0.0.1").unwrap().await.unwrap();
        Self { connection, token: dev.token().to_owned(), _endpoint: endpoint }
    }

    /// The head of a stream.
    pub fn head(&self) -> String {
        json!({ "authorization": format!("Bearer {}", self.token), "endpoint": "/mcp" }).to_string()
    }

    /// Sends bytes on a stream of their own, which stays open.
    pub async fn send(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        (send, recv)
    }

    /// Every line that answers a message.
    pub async fn ask(&self, head: &str, message: &Value) -> Vec<Value> {
        let (mut send, mut recv) = self.send(format!("{head}\n{message}\n").as_bytes()).await;
        send.finish().unwrap();
        lines(&mut recv).await
    }

    /// The answer to a modern request.
    pub async fn modern(&self, method: &str, params: Value) -> Value {
        self.ask(&self.head(), &modern(method, params)).await.pop().expect("an answer")
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.modern("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }
}

/// Lines to the end of a stream.
pub async fn lines(recv: &mut RecvStream) -> Vec<Value> {
    let all = tokio::time::timeout(PATIENCE, recv.read_to_end(16 << 20)).await.expect("the stream ends").unwrap();
    let text = String::from_utf8(all).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
