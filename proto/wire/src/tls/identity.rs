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
    client::{Resumption, verify_server_cert_signed_by_trust_anchor},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, sign as crypto},
    },
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};

use crate::tls::{
    Certified, Expect, Material, NodeName, TlsError, certificates, read_certificate,
    verify::{ClientVerifier, ServerVerifier, Trust},
};

/// An operator hears of it when so little of a certificate's life is left, or a tenth of it.
const OPERATOR_WARNING: Duration = Duration::from_secs(3600);
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
    /// As PEM.
    bundle: String,
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

    /// An operator's own `cert.pem`, `key.pem` and `ca.pem`. The certificate must name the node by
    /// a SPIFFE URI, too, hold now, and be signed by what `ca.pem` trusts: peers would refuse others.
    pub fn load_operator(dir: &Path) -> Result<Self, TlsError> {
        let loaded = Loaded::new(&Material::load_operator(dir)?)?;
        loaded.check_now()?;
        Ok(Self { loaded: ArcSwap::from_pointee(loaded) })
    }

    /// Uses an operator's files as they are now for new connections. Says whether they differ from
    /// those in use.
    pub fn reload_operator(&self, dir: &Path) -> Result<bool, TlsError> {
        let material = Material::load_operator(dir)?;
        let new = Loaded::new(&material)?;
        let present = self.loaded.load();
        if new.chain == present.chain && new.bundle == present.bundle {
            return Ok(false);
        }
        new.check_now()?;
        self.take(new)?;
        Ok(true)
    }

    /// Uses new material for new connections. It must be for the same node.
    pub fn replace(&self, material: &Material) -> Result<(), TlsError> {
        self.take(Loaded::new(material)?)
    }

    fn take(&self, new: Loaded) -> Result<(), TlsError> {
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

    /// Every authority that is trusted, PEM.
    pub fn bundle(&self) -> String {
        self.loaded.load().bundle.clone()
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
        let bundle = material.bundle.clone();
        Ok(Self { certified, chain, key, bundle, roots, server: Arc::new(server) })
    }

    /// Whether peers that trust the same would take it now.
    fn check_now(&self) -> Result<(), TlsError> {
        let Certified { name, not_before, not_after, .. } = &self.certified;
        if !self.certified.holds(SystemTime::now()) {
            let (node, from, until) = (name.to_string(), rfc3339(*not_before), rfc3339(*not_after));
            return Err(TlsError::NotNow { node, from, until });
        }
        let (leaf, above) =
            self.chain.split_first().ok_or_else(|| TlsError::certificate("the certificate", "is missing"))?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, above, UnixTime::now(), algorithms)
            .map_err(|e| TlsError::certificate("the certificate is not one that ca.pem vouches for", e))
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

/// RFC 3339, to the second.
fn rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = x509_parser::time::ASN1Time::from_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
    at.map_or_else(|_| format!("{seconds} s after 1970"), |at| at.to_string())
}

/// Takes over an operator's files as they change, looking each `interval`. What cannot be used is
/// logged, and the identity stays what it was. Runs until it is dropped.
pub async fn follow_operator(identity: Arc<Identity>, dir: PathBuf, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let (own, from) = (identity.clone(), dir.clone());
        let replaced = tokio::task::spawn_blocking(move || own.reload_operator(&from)).await;
        match replaced {
            Ok(Ok(true)) => tracing::info!(node = %identity.name(), "the operator's new certificate is in use"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(e)) => tracing::error!(code = e.code(), error = %e, "the operator's certificate cannot be used"),
        }
        let Certified { not_before, not_after, .. } = identity.certified();
        let life = not_after.duration_since(not_before).unwrap_or_default();
        let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
        if left < OPERATOR_WARNING.min(life / 10) {
            tracing::warn!(code = "PV-TLS-EXPIRED", left_s = left.as_secs(), "put a new certificate in place");
        }
    }
}
