//! An identity as text, and its files.
//!
//! A key and its certificate change together, but two files cannot be renamed at once. The order
//! is: new key beside the old one (`key.next`), bundle, certificate, then the key takes its place.
//! A crash before the certificate's rename leaves the old pair and a `key.next` that is dropped;
//! a crash after it leaves a certificate that fits `key.next`, which is then put in place.

use std::{fmt, fs, path::Path};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use crate::tls::{TlsError, certificates, files};

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
const NEXT_KEY: &str = "key.next";
const BUNDLE: &str = "bundle.pem";
/// The authorities, where an operator puts the files.
const OPERATOR_CA: &str = "ca.pem";
/// Only the owner may read a key that a node made.
const OWNER_ONLY: u32 = 0o077;
/// An operator's key may also be read by its group: mounted secrets are.
const OWNER_AND_GROUP: u32 = 0o007;

/// Certificate, key and trusted authorities, each as PEM.
#[derive(Clone)]
pub struct Material {
    /// The node's certificate, then those up to its CA; the CA's own too, for nodes that join.
    pub certificate: String,
    /// The private key.
    pub key: Zeroizing<String>,
    /// Every authority to trust.
    pub bundle: String,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Material {
    /// Whether a folder has what a node stored there.
    pub fn exists(dir: &Path) -> bool {
        dir.join(CERTIFICATE).exists()
    }

    /// Reads what a node stored, and ends a change that a crash left half done.
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        let certificate = files::read(&dir.join(CERTIFICATE))?.to_string();
        let bundle = files::read(&dir.join(BUNDLE))?.to_string();
        let (current, next) = (dir.join(KEY), dir.join(NEXT_KEY));
        if next.exists() {
            let key = files::read_key(&next, OWNER_ONLY);
            if key.is_ok_and(|key| fits(&certificate, &key)) {
                files::rename(&next, &current)?;
            } else {
                fs::remove_file(&next).map_err(|cause| TlsError::File { path: next, cause })?;
            }
            files::sync_dir(dir)?;
        }
        let key = files::read_key(&current, OWNER_ONLY)?;
        Ok(Self { certificate, key, bundle })
    }

    /// Reads an operator's own `cert.pem`, `key.pem` and `ca.pem`.
    pub fn load_operator(dir: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: files::read(&dir.join(CERTIFICATE))?.to_string(),
            key: files::read_key(&dir.join(KEY), OWNER_AND_GROUP)?,
            bundle: files::read(&dir.join(OPERATOR_CA))?.to_string(),
        })
    }

    /// Stores it; when it returns, a crash loses nothing of it.
    pub fn store(&self, dir: &Path) -> Result<(), TlsError> {
        files::make_dir(dir)?;
        files::write(&dir.join(NEXT_KEY), &self.key, 0o600)?;
        files::sync_dir(dir)?;
        files::write(&dir.join(BUNDLE), &self.bundle, 0o644)?;
        files::write(&dir.join(CERTIFICATE), &self.certificate, 0o644)?;
        files::sync_dir(dir)?;
        files::rename(&dir.join(NEXT_KEY), &dir.join(KEY))?;
        files::sync_dir(dir)?;
        // The folder itself may be new.
        dir.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), files::sync_dir)
    }
}

/// Whether a key belongs to a certificate. What cannot be read does not.
fn fits(certificate: &str, key: &str) -> bool {
    let Ok(chain) = certificates("the certificate", certificate) else { return false };
    let Ok(key) = PrivateKeyDer::from_pem_slice(key.as_bytes()) else { return false };
    let Ok(key) = aws_lc_rs::sign::any_supported_type(&key) else { return false };
    CertifiedKey::new(chain, key).keys_match().is_ok()
}
