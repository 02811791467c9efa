//! What outgoing TLS trusts: what the machine trusts, read once for all clients.
//!
//! A client of its own for each plugin keeps their connections apart. What they trust is the same, and reading it
//! takes milliseconds and a megabyte: a node with thousands of plugins must not do that for each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::{
    ClientConfig,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_platform_verifier::BuilderVerifierExt;
use secrecy::{ExposeSecret, SecretString};

use super::ClientUnmade;

/// A client that is made later than this after the machine's certificates were read has them read again: a
/// certificate authority that was added counts for plugins that are changed from then on, without a restart.
const REREAD_AFTER: Duration = Duration::from_secs(60);

/// TLS sessions that one client takes up again: it talks to one host, or few.
const SESSIONS: usize = 16;

static READ: Mutex<Option<(Instant, ClientConfig)>> = Mutex::new(None);

/// The configuration of one client: TLS 1.2 and 1.3, and sessions of its own. Which protocols it speaks is for the
/// client to say.
pub(super) fn client_config() -> Result<ClientConfig, rustls::Error> {
    let mut config = trusting()?;
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// What all clients have in common.
fn trusting() -> Result<ClientConfig, rustls::Error> {
    let mut read = READ.lock();
    if let Some((at, config)) = &*read
        && at.elapsed() < REREAD_AFTER
    {
        return Ok(config.clone());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let config = builder.with_platform_verifier()?.with_no_client_auth();
    *read = Some((Instant::now(), config.clone()));
    Ok(config)
}

/// A client's certificate out of PEM that holds its chain and its private key. No error repeats what it holds.
pub(super) fn client_certificate(pem: &SecretString) -> Result<Arc<dyn ResolvesClientCert>, ClientUnmade> {
    let unmade = |what: &str| ClientUnmade(format!("the client certificate {what}"));
    let bytes = pem.expose_secret().as_bytes();
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|_| unmade("cannot be read as PEM"))?;
    if chain.is_empty() {
        return Err(unmade("is not in the PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|_| unmade("has no private key in the PEM"))?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    let key = key.map_err(|_| unmade("and the private key do not belong together"))?;
    Ok(Arc::new(SingleCertAndKey::from(key)))
}
