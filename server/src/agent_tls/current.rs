//! The certificate of the moment, and its replacement.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::failure::Failure;

/// Where certificates come from.
pub trait TlsSource: Send + Sync + 'static {
    /// The certificate and key of now; `None`: as before.
    fn newer(&mut self) -> anyhow::Result<Option<CertifiedKey>>;
    /// Between two looks.
    fn look_every(&self) -> Duration;
}

/// See the module.
#[derive(Debug)]
pub struct Current(ArcSwap<CertifiedKey>);

impl Current {
    /// Begins with what the source has, which must be there. Also gives what keeps it new; it never
    /// ends by itself.
    pub fn start(mut source: impl TlsSource) -> anyhow::Result<(Arc<Self>, impl Future<Output = ()> + Send + 'static)> {
        let first = source.newer()?;
        let first = first.ok_or_else(|| anyhow::anyhow!("PV-TLS-CERTIFICATE: there is no certificate for agents"))?;
        let current = Arc::new(Self(ArcSwap::from_pointee(first)));
        let following = current.clone().follow(source);
        Ok((current, following))
    }

    /// Begins with a certificate that somebody else keeps new, by [`Current::replace`].
    pub(super) fn of(first: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(first)))
    }

    /// Used from the next connection on.
    pub(super) fn replace(&self, newer: CertifiedKey) {
        self.0.store(Arc::new(newer));
        tracing::info!("agents are served with a new certificate");
    }

    async fn follow(self: Arc<Self>, mut source: impl TlsSource) {
        loop {
            tokio::time::sleep(source.look_every()).await;
            match source.newer() {
                Ok(None) => {}
                Ok(Some(newer)) => self.replace(newer),
                // Half of a pair may have been written: the one before is used until both are there.
                Err(cause) => tracing::warn!("agents are still served with the certificate before: {cause:#}"),
            }
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// A pair of PEM texts; `what` names them in errors, which never show any part of the key.
pub(super) fn certified(what: &str, certificates: &[u8], key: &[u8]) -> anyhow::Result<CertifiedKey> {
    let bad = |cause: String| {
        let hint =
            "the first file needs the certificate and then those up to its CA, the second its private key, in PEM";
        Failure::new("PV-TLS-CERTIFICATE", format!("{what}: {cause}"), hint)
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|e| bad(format!("the certificate cannot be read: {e}")))?;
    if chain.is_empty() {
        return Err(bad("there is no certificate".to_owned()).into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| bad("the private key cannot be read".to_owned()))?;
    let key = any_supported_type(&key).map_err(|e| bad(format!("the private key cannot be used: {e}")))?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|e| bad(format!("certificate and key do not belong together: {e}")))?;
    Ok(pair)
}
