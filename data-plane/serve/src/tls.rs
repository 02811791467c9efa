//! TLS of the front ends: 1.3 and nothing older, over TCP and over QUIC.
//!
//! Invariants: the certificate of the moment is asked for with each handshake, so that a new one is used
//! from the next connection on and no connection is dropped for it. Whose certificates clients may show can
//! change while the node serves: then new connections know only the new rule, no session of before is
//! resumed, since resuming skips the look at certificates, and connections whose certificate the new rule
//! does not take are ended.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use rustls::{
    CertificateError, Error, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    version::TLS13,
};
use tokio::sync::watch;

use crate::ClientCertificates;

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
    #[error("PV-TLS-CERTIFICATE: the authorities of clients, or their revocation lists, cannot be used: {0}")]
    Clients(#[from] VerifierBuilderError),
    /// QUIC needs a cipher suite that is not there.
    #[error("PV-TLS-CERTIFICATE: QUIC cannot be set up: {0}")]
    Quic(#[from] NoInitialCipherSuite),
}

/// What TLS is served with. Clones are the same.
#[derive(Clone)]
pub struct ServerTls(Arc<Shared>);

struct Shared {
    certificates: Arc<dyn ResolvesServerCert>,
    rules: ArcSwap<Rules>,
    changes: watch::Sender<()>,
}

/// What new connections are made with.
struct Rules {
    tcp: Arc<ServerConfig>,
    quic: Arc<QuicServerConfig>,
    /// `None`: clients show no certificates.
    clients: Option<Arc<dyn ClientCertVerifier>>,
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
        let rules = ArcSwap::from_pointee(Rules::new(&certificates, clients)?);
        Ok(Self(Arc::new(Shared { certificates, rules, changes: watch::Sender::new(()) })))
    }

    /// From now on clients may show these. Errors: nothing is changed.
    pub fn trust(&self, clients: &ClientCertificates) -> Result<(), TlsUnusable> {
        let rules = Rules::new(&self.0.certificates, Some(clients))?;
        self.0.rules.store(Arc::new(rules));
        self.0.changes.send_replace(());
        Ok(())
    }

    /// For the next connection over TCP.
    pub(crate) fn tcp(&self) -> Arc<ServerConfig> {
        self.0.rules.load().tcp.clone()
    }

    /// For the next connections over QUIC.
    pub(crate) fn quic(&self) -> Arc<QuicServerConfig> {
        self.0.rules.load().quic.clone()
    }

    /// Told when [`ServerTls::quic`] is another.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Whether clients may show certificates at all.
    pub(crate) fn takes_certificates(&self) -> bool {
        self.0.rules.load().clients.is_some()
    }

    /// Waits until this chain is not taken any more; without one, for ever. To be called when the handshake
    /// is complete: it may have begun under an older rule.
    pub(crate) async fn until_distrusted(&self, chain: Option<Vec<CertificateDer<'static>>>) {
        let mut changes = self.changes();
        if let Some((leaf, above)) = chain.as_deref().and_then(<[_]>::split_first) {
            while self.trusts(leaf, above) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
            return;
        }
        std::future::pending().await
    }

    fn trusts(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> bool {
        let rules = self.0.rules.load();
        let Some(clients) = &rules.clients else { return false };
        match clients.verify_client_cert(leaf, above, UnixTime::now()) {
            Ok(_) => true,
            // That a list is out of date says nothing against those who were let in by it.
            Err(Error::InvalidCertificate(
                CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. },
            )) => true,
            Err(cause) => {
                tracing::info!(%cause, "a client's certificate is not taken any more: its connection ends");
                false
            }
        }
    }
}

impl Rules {
    fn new(
        certificates: &Arc<dyn ResolvesServerCert>,
        clients: Option<&ClientCertificates>,
    ) -> Result<Self, TlsUnusable> {
        let clients = clients.map(verifier).transpose()?;
        let mut tcp = config(certificates.clone(), clients.clone())?;
        tcp.alpn_protocols = TCP_ALPN.map(<[u8]>::to_vec).to_vec();
        let mut quic = config(certificates.clone(), clients.clone())?;
        quic.alpn_protocols = vec![H3_ALPN.to_vec(), MCP_ALPN.to_vec()];
        // Sessions are kept here and taken out when used, so that early data is good once on one
        // node and refused on every other one. QUIC knows no other size than this one and 0.
        quic.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        quic.max_early_data_size = u32::MAX;
        Ok(Self { tcp: Arc::new(tcp), quic: Arc::new(QuicServerConfig::try_from(quic)?), clients })
    }
}

/// Looks at the whole chain. Where there are lists, whoever is on none that counts is refused, and so is
/// everybody under a list that has ended.
fn verifier(clients: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(clients.authorities.clone(), provider)
        .with_crls(clients.revoked.iter().cloned())
        .enforce_revocation_expiration();
    if clients.required { verifier.build() } else { verifier.allow_unauthenticated().build() }
}

fn config(
    certificates: Arc<dyn ResolvesServerCert>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, TlsUnusable> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    Ok(builder.with_cert_resolver(certificates))
}
