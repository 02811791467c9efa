//! An authority of this machine's own, for `provost dev`: TLS without anybody's help.
//!
//! Its key and certificate are made once. The server's certificate is made anew at each start and
//! once a day, for the names of loopback and the addresses that are listened on.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::Context;
use provost_wire::tls::encode_pem;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::current::{TlsSource, certified};
use crate::{dev::write_private, node::keys::make_private_dir};

/// The life of the authority: ten years.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// The life of a server's certificate.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Between two certificates.
const RENEW_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// Certificates begin this long before they are made: clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// Names that clients on this machine use.
const NAMES: [&str; 1] = ["localhost"];
const NAME: &str = "Provost local CA";

/// See the module.
pub struct LocalCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    /// The certificate, then the authority's.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
}

impl LocalCa {
    /// Opens the authority whose key is in `keys`; made at the first start. Its certificate is at
    /// `certificate`, for clients.
    pub fn open_or_make(keys: &Path, certificate: &Path) -> anyhow::Result<Self> {
        make_private_dir(keys)?;
        let key_path = keys.join("local-ca.key");
        if key_path.exists() && certificate.exists() {
            let key = Zeroizing::new(std::fs::read(&key_path).context("PV-NODE-KEY: local-ca.key")?);
            let key = KeyPair::try_from(key.as_slice()).with_context(|| {
                format!("PV-NODE-KEY: {} cannot be used; delete it, and start again", key_path.display())
            })?;
            let text = std::fs::read_to_string(certificate).context("PV-TLS-FILE: the local CA's certificate")?;
            return Ok(Self { issuer: Issuer::new(ca_params(), key), certificate: text });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("PV-NODE-KEY: no key was made")?;
        let made = ca_params().self_signed(&key).context("PV-TLS-CERTIFICATE: the local CA")?;
        let text = encode_pem("CERTIFICATE", made.der());
        // The certificate last: where one of the two is missing, both are made anew.
        write_private(&key_path, key.serialized_der())?;
        write_private(certificate, text.as_bytes())?;
        Ok(Self { issuer: Issuer::new(ca_params(), key), certificate: text })
    }

    /// A certificate for the names of loopback, and for these addresses.
    pub fn issue(&self, addresses: &[IpAddr]) -> anyhow::Result<Issued> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("PV-NODE-KEY: no key was made")?;
        let mut params = named("provost");
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BACKDATE, now + LIFE);
        for name in NAMES {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().context("PV-TLS-CERTIFICATE: a name")?));
        }
        let mut all = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        all.extend(addresses.iter().copied().filter(|a| !a.is_unspecified() && !a.is_loopback()));
        params.subject_alt_names.extend(all.into_iter().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&key, &self.issuer).context("PV-TLS-CERTIFICATE: the local certificate")?;
        let certificate = format!("{}{}", encode_pem("CERTIFICATE", signed.der()), self.certificate);
        Ok(Issued { certificate, key: Zeroizing::new(encode_pem("PRIVATE KEY", key.serialized_der())) })
    }

    /// Certificates for these addresses, one a day.
    pub fn source(self, addresses: Vec<IpAddr>) -> impl TlsSource {
        LocalSource { ca: self, addresses }
    }
}

struct LocalSource {
    ca: LocalCa,
    addresses: Vec<IpAddr>,
}

impl TlsSource for LocalSource {
    fn newer(&mut self) -> anyhow::Result<Option<CertifiedKey>> {
        let issued = self.ca.issue(&self.addresses)?;
        certified("the local certificate", issued.certificate.as_bytes(), issued.key.as_bytes()).map(Some)
    }

    fn look_every(&self) -> Duration {
        RENEW_EVERY
    }
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn ca_params() -> CertificateParams {
    let mut params = named(NAME);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BACKDATE, now + CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
