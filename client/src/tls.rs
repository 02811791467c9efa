//! Whom this client believes: the authorities of a file, or those of the system.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::LinkError;

/// The TLS side of a client that offers these protocols. With `ca` only what that file's authorities
/// signed is believed.
pub(crate) fn client_config(ca: Option<&Path>, alpn: &[&[u8]]) -> Result<ClientConfig, LinkError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let failed = |cause: rustls::Error| LinkError::Ca(format!("TLS cannot be set up: {cause}"));
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
    let mut config = match ca {
        Some(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
        None => builder.with_platform_verifier().map_err(failed)?.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

fn roots(file: &Path) -> Result<RootCertStore, LinkError> {
    let wrong = |cause: String| LinkError::Ca(format!("{} cannot be used: {cause}", file.display()));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|cause| wrong(cause.to_string()))? {
        let certificate = certificate.map_err(|cause| wrong(cause.to_string()))?;
        store.add(certificate).map_err(|cause| wrong(cause.to_string()))?;
    }
    if store.is_empty() {
        return Err(wrong("it holds no certificate in PEM".to_owned()));
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_holds_no_authority_is_named() {
        let dir = std::env::temp_dir().join(format!("provost-client-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in [("empty.pem", ""), ("text.pem", "hello"), ("bad.pem", "-----BEGIN CERTIFICATE-----\n!")] {
            let file = dir.join(name);
            std::fs::write(&file, text).unwrap();
            let error = client_config(Some(&file), &[]).unwrap_err();
            assert!(error.code() == "PV-CLI-CA" && error.to_string().contains(name), "{error}");
        }
        assert!(client_config(Some(&dir.join("missing.pem")), &[]).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
