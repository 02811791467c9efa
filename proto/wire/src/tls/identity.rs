//! Who this node is, replaceable while it runs.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, sign as crypto},
    },
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

use crate::tls::{
    Certified, Expect, Material, NodeName, TlsError, certificates, read_certificate,
    verify::{ClientVerifier, ServerVerifier, Trust},
};

/// HTTP/2, the only protocol spoken.
const ALPN: &[u8] = b"h2";

/// A node's certificate, key and trusted authorities. Connections made after [`Identity::replace`]
/// use the new ones; those made before go on.
pub struct Identity {
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    certified: Certified,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Checks that the parts are usable and belong together. Whether the certificate has ended is
    /// not looked at: see [`Identity::expires`].
    pub fn new(material: &Material) -> Result<Self, TlsError> {
        Ok(Self { loaded: ArcSwap::from_pointee(Loaded::new(material)?) })
    }

    /// What a node stored in a folder, see [`Material::store`].
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        Self::new(&Material::load(dir)?)
    }

    /// An operator's own `tls.crt`, `tls.key` and `ca.crt`. The certificate must name the node by
    /// a SPIFFE URI, too.
    pub fn load_operator(dir: &Path) -> Result<Self, TlsError> {
        Self::new(&Material::load_operator(dir)?)
    }

    /// Uses new material for new connections. It must be for the same node.
    pub fn replace(&self, material: &Material) -> Result<(), TlsError> {
        let new = Loaded::new(material)?;
        let own = self.name();
        if new.certified.name != own {
            return Err(TlsError::OtherNode { own: own.to_string(), found: new.certified.name.to_string() });
        }
        self.loaded.store(Arc::new(new));
        Ok(())
    }

    /// The node's name; never changes.
    pub fn name(&self) -> NodeName {
        self.loaded.load().certified.name.clone()
    }

    /// All that the present certificate says.
    pub fn certified(&self) -> Certified {
        self.loaded.load().certified.clone()
    }

    /// When the present certificate ends.
    pub fn expires(&self) -> SystemTime {
        self.loaded.load().certified.not_after
    }

    /// The certificate itself.
    pub fn leaf(&self) -> Result<CertificateDer<'static>, TlsError> {
        let leaf = self.loaded.load().chain.first().cloned();
        leaf.ok_or_else(|| TlsError::certificate("the certificate", "is missing"))
    }

    /// Signs with the certificate's key: ECDSA on P-256 with SHA-256, ASN.1. Another kind of key is
    /// refused. It shows that this node has the key where TLS cannot.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let key = crypto::any_supported_type(&self.loaded.load().key)?;
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let signer = signer.ok_or_else(|| TlsError::certificate("the private key", "is not ECDSA on P-256"))?;
        Ok(signer.sign(message)?)
    }

    /// For one connection as nobody to a server of this node's cluster.
    pub(crate) fn nameless_config(&self, expect: Expect) -> Result<Arc<ClientConfig>, TlsError> {
        let loaded = self.loaded.load_full();
        let expect = expect.in_cluster(loaded.certified.name.cluster());
        anonymous_config(Trust::Bundle(loaded.roots.clone()), expect)
    }

    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.loaded.load().server.clone()
    }

    /// For one connection as this node to a server of this node's cluster.
    pub(crate) fn client_config(&self, expect: Expect) -> Result<Arc<ClientConfig>, TlsError> {
        let loaded = self.loaded.load_full();
        let provider = provider();
        let expect = expect.in_cluster(loaded.certified.name.cluster());
        let verifier = ServerVerifier::new(Trust::Bundle(loaded.roots.clone()), expect, &provider);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(loaded.chain.clone(), loaded.key.clone_key())?;
        Ok(finish_client(config))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.name())
    }
}

impl Loaded {
    fn new(material: &Material) -> Result<Self, TlsError> {
        let chain = certificates("the certificate", &material.certificate)?;
        let leaf = chain.first().ok_or_else(|| TlsError::certificate("the certificate", "is missing"))?;
        let certified = read_certificate(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes())
            .map_err(|e| TlsError::certificate("the private key", e))?;
        let roots = roots(&material.bundle)?;
        let provider = provider();
        let by_chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::certificate("the bundle", e))?;
        let verifier = ClientVerifier { chain: by_chain, cluster: certified.name.cluster().clone() };
        // Also checks that the key belongs to the certificate.
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| TlsError::certificate("the certificate and its key", e))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the checks of names and of ended certificates.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { certified, chain, key, roots, server: Arc::new(server) })
    }
}

/// For one connection without a certificate of one's own.
pub(crate) fn anonymous_config(trust: Trust, expect: Expect) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = ServerVerifier::new(trust, expect, &provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(finish_client(config))
}

fn finish_client(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Verified anew each time: a session of one expectation must not serve another.
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

/// The authorities of a bundle; every one must be usable.
pub(crate) fn roots(bundle: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates("the bundle", bundle)? {
        roots.add(ca).map_err(|e| TlsError::certificate("the bundle", e))?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Takes over an operator's files as they change, looking each `interval`. What cannot be used is
/// logged, and the identity stays what it was. Runs until it is dropped.
pub async fn follow_operator(identity: Arc<Identity>, dir: PathBuf, interval: Duration) {
    let mut last = String::new();
    loop {
        tokio::time::sleep(interval).await;
        let from = dir.clone();
        let read = tokio::task::spawn_blocking(move || Material::load_operator(&from)).await;
        let Ok(read) = read else { continue };
        let replaced = read.and_then(|material| {
            let both = format!("{}{}", material.certificate, material.bundle);
            if both == last {
                return Ok(false);
            }
            identity.replace(&material)?;
            last = both;
            Ok(true)
        });
        match replaced {
            Ok(true) => tracing::info!(node = %identity.name(), "the operator's certificate is in use"),
            Ok(false) => {}
            Err(e) => tracing::error!(code = e.code(), error = %e, "the operator's certificate cannot be used"),
        }
    }
}
