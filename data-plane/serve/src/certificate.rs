//! What a client's certificate says of it, once TLS has verified it.
//!
//! Invariants: only the certificate of a handshake that is complete is read; the subject's common name, which
//! authorities check least, does not count.

use std::sync::Arc;

use provost_data_pipeline::CertificateFacts;
use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// Names of one certificate that are looked at.
const MAX_NAMES: usize = 32;

/// The facts of the first certificate of a chain.
pub(crate) fn facts_of(chain: &[CertificateDer<'_>]) -> Option<Arc<CertificateFacts>> {
    let (_, certificate) = parse_x509_certificate(chain.first()?).ok()?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).take(MAX_NAMES).collect(),
        Ok(None) => Vec::new(),
        Err(_) => return None,
    };
    let ends_s = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Some(Arc::new(CertificateFacts { names, ends_s }))
}

/// A name as principals have it in `certificates`.
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some(format!("uri:{uri}")),
        GeneralName::DNSName(dns) => Some(format!("dns:{}", dns.to_ascii_lowercase())),
        GeneralName::RFC822Name(email) => Some(format!("email:{email}")),
        _ => None,
    }
}

/// The facts of a QUIC connection's client, where it has shown a certificate and the handshake is complete.
pub(crate) fn facts_of_quic(connection: &quinn::Connection) -> Option<Arc<CertificateFacts>> {
    facts_of(&chain_of_quic(connection)?)
}

/// The chain that a QUIC connection's client has shown.
pub(crate) fn chain_of_quic(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    let identity = connection.peer_identity()?;
    identity.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
}
