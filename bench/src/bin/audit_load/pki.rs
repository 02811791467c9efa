//! Certificates for the processes of the bench.

use std::sync::Arc;

use provost_wire::tls::{Identity, Material, encode_pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::{Duration, OffsetDateTime};

/// An authority that lives as long as the bench.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Pki {
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "provost bench");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let pem = encode_pem("CERTIFICATE", params.self_signed(&key)?.der());
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The identity of a node of cluster `bench`.
    pub fn identity(&self, role: &str, name: &str) -> anyhow::Result<Arc<Identity>> {
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::hours(1);
        params.not_after = now + Duration::days(1);
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://bench/{role}/{name}").as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = encode_pem("CERTIFICATE", params.signed_by(&key, &self.issuer)?.der());
        let key = encode_pem("PRIVATE KEY", key.serialized_der()).into();
        Ok(Arc::new(Identity::new(&Material { certificate, key, bundle: self.pem.clone() })?))
    }
}
