//! Clients with certificates, over TCP and over QUIC.

use std::sync::Arc;

use provost_data_serve::{ClientCertificates, PlainRule, QuicLimits};
use provost_types::Phase;
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    quic_client::{Client, SecureNode, call, modern, serve_for},
    world::modern_request,
};

pub const ALICE: &str = "uri:spiffe://test/alice";

/// An authority of clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub fn trusted(&self, required: bool) -> ClientCertificates {
        let mut authorities = RootCertStore::empty();
        authorities.add(self.certificate.clone()).unwrap();
        ClientCertificates { authorities: Arc::new(authorities), revoked: Vec::new(), required }
    }

    /// Trusted, with a list that revokes these and ends in this year.
    pub fn listing(&self, serials: &[u64], until: i32) -> ClientCertificates {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        ClientCertificates { revoked: vec![list.der().clone()], ..self.trusted(false) }
    }

    /// TLS of a client whose certificate has this name.
    pub fn client(&self, node: &SecureNode, name: &str, alpn: &[u8]) -> rustls::ClientConfig {
        self.client_of(node, name, alpn, 1)
    }

    /// The same with a serial number.
    pub fn client_of(&self, node: &SecureNode, name: &str, alpn: &[u8], serial: u64) -> rustls::ClientConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = vec![SanType::URI(name.strip_prefix("uri:").unwrap().try_into().unwrap())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(node.trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_early_data = true;
        config
    }
}

pub fn endpoint(config: rustls::ClientConfig) -> Endpoint {
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let crypto = QuicClientConfig::try_from(config).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
    endpoint
}

/// Who made the last call of this method, by its record.
fn who(node: &SecureNode, method: &str) -> String {
    let events = node.served.world.plane.events.lock();
    let last = events.iter().rev().find(|e| e.phase == Phase::Outcome && e.what.method == method);
    last.map(|e| e.who.principal.clone()).unwrap_or_default()
}

/// Posts a call over HTTP/1.1; the status line.
pub async fn post(node: &SecureNode, config: rustls::ClientConfig, authorization: &str) -> std::io::Result<String> {
    let (headers, body) = modern_request("tools/call", json!({ "name": "echo", "arguments": {} }));
    let mut request =
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
                       accept: application/json, text/event-stream\r\n"
            .to_owned();
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("{authorization}content-length: {}\r\n\r\n{body}", body.len());
    let stream = TcpStream::connect(node.served.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_says_who_calls_where_no_token_does() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let node = serve_for(QuicLimits::DEFAULT, PlainRule::Refused, Some(&authority.trusted(false))).await;

    let mine = authority.client(&node, ALICE, b"mcp/1");
    let client = Client::connect(&endpoint(mine), &node).await;
    for (head, expect) in [
        ("{}", "alice"),
        (r#"{"authorization":"Bearer token-bob"}"#, "bob"),
        // A header that is no token is no certificate either.
        (r#"{"authorization":"Basic x"}"#, "anonymous"),
    ] {
        let said = client.open(&[head, &call("echo")]).await.rest().await;
        assert!(said[0]["result"].is_object(), "{head}: {said:?}");
        assert_eq!(who(&node, "tools/call"), expect, "{head}");
    }
    let without = Client::connect(&node.endpoint(b"mcp/1"), &node).await;
    assert!(without.open(&["{}", &call("echo")]).await.rest().await[0]["result"].is_object());
    assert_eq!(who(&node, "tools/call"), "anonymous");
    let other = authority.client(&node, "uri:spiffe://test/other", b"mcp/1");
    let other = Client::connect(&endpoint(other), &node).await;
    assert!(other.open(&["{}", &call("echo")]).await.rest().await[0]["result"].is_object());
    assert_eq!(who(&node, "tools/call"), "stranger", "by its own name, and no other");

    for (authorization, expect) in [("", "alice"), ("authorization: Bearer token-bob\r\n", "bob")] {
        let status = post(&node, authority.client(&node, ALICE, b"http/1.1"), authorization).await.unwrap();
        assert_eq!((status.as_str(), who(&node, "tools/call").as_str()), ("HTTP/1.1 200 OK", expect));
    }
    assert_eq!(post(&node, node.tls(b"http/1.1"), "").await.unwrap(), "HTTP/1.1 200 OK");
    assert_eq!(who(&node, "tools/call"), "anonymous");
    assert!(post(&node, stranger.client(&node, ALICE, b"http/1.1"), "").await.is_err(), "another authority");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_certificate_is_required_there_is_no_connection_without() {
    let authority = Authority::new();
    let node = serve_for(QuicLimits::DEFAULT, PlainRule::Refused, Some(&authority.trusted(true))).await;
    assert!(post(&node, node.tls(b"http/1.1"), "authorization: Bearer token-bob\r\n").await.is_err());
    let status = post(&node, authority.client(&node, ALICE, b"http/1.1"), "").await.unwrap();
    assert_eq!((status.as_str(), who(&node, "tools/call").as_str()), ("HTTP/1.1 200 OK", "alice"));
    // Over QUIC the client's side of the handshake ends first: the refusal comes after it.
    let connecting = node.endpoint(b"mcp/1").connect(node.served.address, "localhost").unwrap();
    if let Ok(connection) = connecting.await {
        let lost = tokio::time::timeout(crate::quic_client::PATIENCE, connection.closed()).await;
        assert!(lost.is_ok(), "a client without a certificate stays connected");
    }
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_is_nobodys_until_the_handshake_is_complete() {
    let authority = Authority::new();
    let node = serve_for(QuicLimits::DEFAULT, PlainRule::Refused, Some(&authority.trusted(false))).await;
    let endpoint = endpoint(authority.client(&node, ALICE, b"mcp/1"));
    let first = Client::connect(&endpoint, &node).await;
    assert!(first.open(&["{}", &call("echo")]).await.rest().await[0]["result"].is_object());
    first.connection.close(0u32.into(), b"");

    let connecting = endpoint.connect(node.served.address, "localhost").unwrap();
    let (connection, accepted) = connecting.into_0rtt().map_err(|_| "no ticket").unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let list = modern("tools/list", json!({}));
    send.write_all(format!("{{}}\n{list}\n").as_bytes()).await.unwrap();
    send.finish().unwrap();
    assert!(accepted.await, "the node takes early data");
    let said = recv.read_to_end(1 << 20).await.unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert!(said["result"].is_object(), "{said}");
    assert_eq!(who(&node, "tools/list"), "alice", "by the resumed certificate, once nothing can be a replay");
    node.served.stop().await;
}
