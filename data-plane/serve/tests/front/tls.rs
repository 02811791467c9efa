//! TLS on the TCP port, beside plain HTTP or alone.

use std::sync::Arc;

use provost_data_serve::{PlainRule, QuicLimits};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::quic_client::{SecureNode, serve_with};

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn plain(node: &SecureNode) -> String {
    let mut stream = TcpStream::connect(node.served.address).await.unwrap();
    let _ = stream.write_all(REQUEST).await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn secure(node: &SecureNode, config: rustls::ClientConfig) -> std::io::Result<String> {
    let stream = TcpStream::connect(node.served.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(REQUEST).await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_takes_tls_and_where_it_may_plain_http() {
    for (rule, takes_plain) in [(PlainRule::Served, true), (PlainRule::Refused, false)] {
        let node = serve_with(QuicLimits::DEFAULT, rule).await;
        assert_eq!(plain(&node).await.starts_with("HTTP/1.1 200"), takes_plain, "{rule:?}");
        let said = secure(&node, node.tls(b"http/1.1")).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        let port = node.served.address.port();
        assert!(said.contains(&format!("alt-svc: h3=\":{port}\"; ma=86400")), "{said}");
        assert!(!plain(&node).await.contains("alt-svc"), "only under TLS");
        // A client that offers no protocol of ours, and one of TLS 1.2.
        assert!(secure(&node, node.tls(b"mcp/1")).await.is_err());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(node.trusted.clone()).unwrap();
        let old = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        assert!(secure(&node, old).await.is_err());
        node.served.stop().await;
    }
}
