//! TLS of the front ends: 1.3 and nothing older, over TCP and over QUIC.
//!
//! Invariant: the certificate of the moment is asked for with each handshake, so that a new one is
//! used from the next connection on and no connection is dropped for it.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier},
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
    /// The authorities of clients cannot be used.
    #[error("PV-TLS-CERTIFICATE: the authorities of clients cannot be used: {0}")]
    Clients(#[from] VerifierBuilderError),
    /// QUIC needs a cipher suite that is not there.
    #[error("PV-TLS-CERTIFICATE: QUIC cannot be set up: {0}")]
    Quic(#[from] NoInitialCipherSuite),
}

/// Which certificates clients may show.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// The authorities that they must end at.
    pub authorities: Arc<RootCertStore>,
    /// Without one there is no connection.
    pub required: bool,
}

/// What TLS is served with.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) tcp: Arc<ServerConfig>,
    pub(crate) quic: Arc<QuicServerConfig>,
    pub(crate) takes_certificates: bool,
}

impl ServerTls {
    /// With the certificates that `certificates` gives; clients show none.
    pub fn new(certificates: Arc<dyn ResolvesServerCert>) -> Result<Self, TlsUnusable> {
        Self::with_clients(certificates, None)
    }

    /// The same with clients that may, or must, show certificates.
    pub fn with_clients(
        certificates: Arc<dyn ResolvesServerCert>,
        clients: Option<&ClientCertificates>,
    ) -> Result<Self, TlsUnusable> {
        let mut tcp = config(certificates.clone(), clients)?;
        tcp.alpn_protocols = TCP_ALPN.map(<[u8]>::to_vec).to_vec();
        let mut quic = config(certificates, clients)?;
        quic.alpn_protocols = vec![H3_ALPN.to_vec(), MCP_ALPN.to_vec()];
        // Sessions are kept here and taken out when used, so that early data is good once on one
        // node and refused on every other one. QUIC knows no other size than this one and 0.
        quic.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        quic.max_early_data_size = u32::MAX;
        Ok(Self {
            tcp: Arc::new(tcp),
            quic: Arc::new(QuicServerConfig::try_from(quic)?),
            takes_certificates: clients.is_some(),
        })
    }
}

fn config(
    certificates: Arc<dyn ResolvesServerCert>,
    clients: Option<&ClientCertificates>,
) -> Result<ServerConfig, TlsUnusable> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let Some(clients) = clients else { return Ok(builder.with_no_client_auth().with_cert_resolver(certificates)) };
    let verifier = WebPkiClientVerifier::builder_with_provider(clients.authorities.clone(), provider);
    let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
    Ok(builder.with_client_cert_verifier(verifier.build()?).with_cert_resolver(certificates))
}
