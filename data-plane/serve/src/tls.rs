//! TLS of the front ends: 1.3 and nothing older, over TCP and over QUIC.
//!
//! Invariant: the certificate of the moment is asked for with each handshake, so that a new one is
//! used from the next connection on and no connection is dropped for it.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ResolvesServerCert, ServerSessionMemoryCache},
    version::TLS13,
};

/// HTTP over TCP, in the server's order.
const TCP_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Over QUIC.
pub(crate) const H3_ALPN: &[u8] = b"h3";
/// MCP of its own over QUIC.
pub(crate) const MCP_ALPN: &[u8] = b"mcp/1";
/// Sessions that clients may resume, each good once. A session takes a few hundred bytes.
const SESSIONS: usize = 4_096;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsUnusable {
    /// The library refused the configuration.
    #[error("PV-TLS-CERTIFICATE: TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// QUIC needs a cipher suite that is not there.
    #[error("PV-TLS-CERTIFICATE: QUIC cannot be set up: {0}")]
    Quic(#[from] NoInitialCipherSuite),
}

/// What TLS is served with.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) tcp: Arc<ServerConfig>,
    pub(crate) quic: Arc<QuicServerConfig>,
}

impl ServerTls {
    /// With the certificates that `certificates` gives.
    pub fn new(certificates: Arc<dyn ResolvesServerCert>) -> Result<Self, TlsUnusable> {
        let mut tcp = config(certificates.clone())?;
        tcp.alpn_protocols = TCP_ALPN.map(<[u8]>::to_vec).to_vec();
        let mut quic = config(certificates)?;
        quic.alpn_protocols = vec![H3_ALPN.to_vec(), MCP_ALPN.to_vec()];
        // Sessions are kept here and taken out when used, so that early data is good once on one
        // node and refused on every other one. QUIC knows no other size than this one and 0.
        quic.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        quic.max_early_data_size = u32::MAX;
        Ok(Self { tcp: Arc::new(tcp), quic: Arc::new(QuicServerConfig::try_from(quic)?) })
    }
}

fn config(certificates: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?;
    Ok(builder.with_no_client_auth().with_cert_resolver(certificates))
}
