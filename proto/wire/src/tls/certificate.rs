//! What is read from a node's certificate. Signatures are not checked here.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::{
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs::default_provider as aws_lc_rs_provider,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::tls::{NodeName, TlsError, identity::roots};

/// Certificates begin this long before they are issued: clocks of nodes differ.
pub const BACKDATE: Duration = Duration::from_secs(300);
/// Random bytes at the end of a serial number.
const SERIAL_RANDOM_BYTES: usize = 8;

/// A node as its certificate describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The SPIFFE name.
    pub name: NodeName,
    /// DNS names: of a control-plane node, its name.
    pub dns: Vec<String>,
    /// The number that the cluster's own CA put into the serial number: node id, then eight
    /// random bytes. It tells a removed node from a later one of the same name. Means nothing
    /// in certificates of another CA.
    pub serial_node_id: Option<u64>,
    /// From when it holds.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl Certified {
    /// Whether a peer whose clock says `now` takes it.
    pub fn holds(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// Reads a node's certificate: it must have exactly one URI among its names, a node's.
pub fn read_certificate(der: &CertificateDer<'_>) -> Result<Certified, TlsError> {
    let (rest, certificate) = parse_x509_certificate(der).map_err(|e| TlsError::certificate("the certificate", e))?;
    if !rest.is_empty() {
        return Err(TlsError::certificate("the certificate", "has bytes after its end"));
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| TlsError::certificate("the certificate's names", e))?
        .map_or(&[][..], |names| &names.value.general_names);
    let mut uris = names.iter().filter_map(|n| if let GeneralName::URI(uri) = n { Some(*uri) } else { None });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(TlsError::Name("it needs exactly one URI name, spiffe://CLUSTER/ROLES/ID".to_owned()));
    };
    let dns = names.iter().filter_map(|n| if let GeneralName::DNSName(dns) = n { Some(*dns) } else { None });
    let validity = certificate.validity();
    Ok(Certified {
        name: uri.parse()?,
        dns: dns.map(str::to_owned).collect(),
        serial_node_id: node_id_of(certificate.raw_serial()),
        not_before: at(validity.not_before.timestamp()),
        not_after: at(validity.not_after.timestamp()),
    })
}

/// What a certificate said while it held: its chain is verified for its last moment. For nodes that
/// come back after their certificate has ended; the caller decides how long ago that may be.
pub fn read_ended(leaf: &CertificateDer<'_>, bundle: &str) -> Result<Certified, TlsError> {
    let certified = read_certificate(leaf)?;
    let since_epoch = certified.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let parsed = ParsedCertificate::try_from(leaf)?;
    let algorithms = aws_lc_rs_provider().signature_verification_algorithms.all;
    let roots = roots(bundle)?;
    verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &roots,
        &[],
        UnixTime::since_unix_epoch(since_epoch),
        algorithms,
    )
    .map_err(|e| TlsError::certificate("the certificate", e))?;
    Ok(certified)
}

/// From when and until when a certificate holds.
pub fn validity_of(der: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), TlsError> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|e| TlsError::certificate("the certificate", e))?;
    let validity = certificate.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

/// The public key of a certificate, as it stands in it.
pub fn public_key_of(leaf: &CertificateDer<'_>) -> Result<Vec<u8>, TlsError> {
    let (_, certificate) = parse_x509_certificate(leaf).map_err(|e| TlsError::certificate("the certificate", e))?;
    Ok(certificate.public_key().subject_public_key.data.to_vec())
}

/// SHA-256 of a certificate.
pub fn certificate_hash(der: &CertificateDer<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    hash
}

fn node_id_of(serial: &[u8]) -> Option<u64> {
    let (id, _random) = serial.split_at_checked(serial.len().checked_sub(SERIAL_RANDOM_BYTES)?)?;
    let id = id.iter().try_fold(0_u64, |n, byte| n.checked_mul(256)?.checked_add(u64::from(*byte)))?;
    (id > 0).then_some(id)
}

/// Times before 1970 count as 1970: such a certificate has ended either way.
fn at(unix_seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_id_is_the_head_of_the_serial() {
        let random = [255; 8];
        let serial = |head: &[u8]| node_id_of(&[head, &random].concat());
        assert_eq!(serial(&[]), None);
        assert_eq!(serial(&[0]), None);
        assert_eq!(serial(&[7]), Some(7));
        assert_eq!(serial(&[0, 200]), Some(200));
        assert_eq!(serial(&[0, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(serial(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(node_id_of(&[1, 2, 3]), None);
    }
}
