//! A certificate authority: one key (ECDSA on P-256) that signs short-lived certificates of nodes.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use provost_types::Name;
use provost_wire::tls::{BACKDATE, HostName, NodeName, certificate_hash, certificates, encode_pem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use super::{IdentityError, NodeKey, error::ca};

/// The life of a CA: ten years.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Random bytes that tell one CA of a cluster from the next.
const CA_NAME_BYTES: usize = 4;
/// Random bytes of a serial number, after the node's id.
const SERIAL_RANDOM_BYTES: usize = 8;

/// An authority whose key is open.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    hash: [u8; 32],
    not_after: OffsetDateTime,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ca({})", hex::encode(self.hash))
    }
}

impl Ca {
    /// Makes an authority for a cluster: its certificate as PEM, and its key as PKCS #8.
    pub fn make(cluster: &Name, now: SystemTime) -> Result<(String, Zeroizing<Vec<u8>>), IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(ca)?;
        let mut params = issuer_params(&format!("{cluster} CA {}", hex::encode(random::<CA_NAME_BYTES>()?)));
        params.not_before = whole_seconds(now - BACKDATE);
        params.not_after = whole_seconds(now + CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).map_err(ca)?;
        let key = Zeroizing::new(key.serialized_der().to_vec());
        Ok((encode_pem("CERTIFICATE", certificate.der()), key))
    }

    /// An authority from its certificate and key, which must belong together.
    pub fn open(certificate: &str, key: &[u8]) -> Result<Self, IdentityError> {
        let ders = certificates("the CA's certificate", certificate)?;
        let [der] = ders.as_slice() else { return Err(ca("it must be one certificate")) };
        let key = KeyPair::try_from(key).map_err(ca)?;
        let (_, parsed) = parse_x509_certificate(der).map_err(ca)?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(ca("its key is not that of its certificate"));
        }
        let name = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
        let name = name.ok_or_else(|| ca("its certificate has no common name"))?;
        let not_after = OffsetDateTime::from_unix_timestamp(parsed.validity().not_after.timestamp()).map_err(ca)?;
        let issuer = Issuer::new(issuer_params(name), key);
        Ok(Self { issuer, certificate: certificate.to_owned(), hash: certificate_hash(der), not_after })
    }

    /// SHA-256 of the certificate.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// A certificate for a node, with this CA's after it: those who join verify by the CA's hash,
    /// and must be shown it. `dns` is the node's name where the certificate's is a number.
    pub fn issue(
        &self,
        key: &NodeKey,
        name: &NodeName,
        node_id: u64,
        dns: Option<&Name>,
        life: Duration,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let mut params = named(name.id());
        params.serial_number = Some(serial(node_id)?);
        params.not_before = whole_seconds(now - BACKDATE);
        params.not_after = whole_seconds(now + life).min(self.not_after);
        params.subject_alt_names = vec![SanType::URI(name.to_string().try_into().map_err(ca)?)];
        if let Some(dns) = dns {
            params.subject_alt_names.push(SanType::DnsName(dns.to_string().try_into().map_err(ca)?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        self.sign(params, key)
    }

    /// A certificate by which agents know a node, for these names. It names no node of the cluster (no
    /// SPIFFE URI, servers only), so that it is good for nothing between nodes.
    pub fn issue_for_agents(
        &self,
        key: &NodeKey,
        (node, node_id): (&Name, u64),
        names: &[HostName],
        life: Duration,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let mut params = named(node.as_str());
        params.serial_number = Some(serial(node_id)?);
        params.not_before = whole_seconds(now - BACKDATE);
        params.not_after = whole_seconds(now + life).min(self.not_after);
        for name in names {
            params.subject_alt_names.push(match name {
                HostName::Dns(dns) => SanType::DnsName(dns.as_str().try_into().map_err(ca)?),
                HostName::Ip(ip) => SanType::IpAddress(*ip),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        self.sign(params, key)
    }

    fn sign(&self, params: CertificateParams, key: &NodeKey) -> Result<String, IdentityError> {
        let signed = params.signed_by(key, &self.issuer).map_err(ca)?;
        Ok(format!("{}{}", encode_pem("CERTIFICATE", signed.der()), self.certificate))
    }
}

/// What is the same each time the CA is opened: the issuer's name in its certificates.
fn issuer_params(common_name: &str) -> CertificateParams {
    let mut params = named(common_name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// The node's id, then random bytes: see `Certified::serial_node_id`.
fn serial(node_id: u64) -> Result<SerialNumber, IdentityError> {
    let random = random::<SERIAL_RANDOM_BYTES>()?;
    Ok(SerialNumber::from([&node_id.to_be_bytes()[..], &random].concat()))
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| ca("no randomness"))?;
    Ok(bytes)
}

/// Certificates know whole seconds only.
fn whole_seconds(time: SystemTime) -> OffsetDateTime {
    let time = OffsetDateTime::from(time);
    time - Duration::from_nanos(u64::from(time.nanosecond()))
}
