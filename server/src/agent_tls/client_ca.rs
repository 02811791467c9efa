//! The authorities of certificates that agents show.

use std::{path::PathBuf, sync::Arc};

use provost_data_serve::ClientCertificates;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Serialize;

use crate::failure::Failure;

/// Where they are, and whether an agent must show a certificate. Read at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientCa {
    /// A PEM file.
    pub file: PathBuf,
    /// No connection without a certificate.
    pub required: bool,
}

impl ClientCa {
    /// Reads the file, which must hold certificates and nothing that is none.
    pub fn read(&self) -> anyhow::Result<ClientCertificates> {
        let bad = |cause: String| {
            let hint = "data_plane.tls.client_ca is a PEM file with the certificates of the agents' authorities";
            Failure::new("PV-TLS-CERTIFICATE", format!("{}: {cause}", self.file.display()), hint)
        };
        let pem = std::fs::read(&self.file).map_err(|cause| bad(cause.to_string()))?;
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|cause| bad(format!("cannot be read: {cause}")))?;
            authorities.add(certificate).map_err(|cause| bad(format!("cannot be used: {cause}")))?;
        }
        if authorities.is_empty() {
            return Err(bad("there is no certificate".to_owned()).into());
        }
        Ok(ClientCertificates { authorities: Arc::new(authorities), required: self.required })
    }
}
