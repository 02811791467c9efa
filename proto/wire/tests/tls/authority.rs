//! A CA for tests.

use std::time::Duration;

use provost_wire::tls::{Identity, Material, certificate_hash, encode_pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub hash: [u8; 32],
}

/// What a leaf says; change what a case is about.
pub struct Leaf {
    pub uris: Vec<String>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub usages: Vec<ExtendedKeyUsagePurpose>,
}

pub fn leaf(uri: &str) -> Leaf {
    let now = OffsetDateTime::now_utc();
    Leaf {
        uris: vec![uri.to_owned()],
        not_before: now - Duration::from_secs(60),
        not_after: now + Duration::from_secs(3600),
        usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    }
}

impl Leaf {
    pub fn for_seconds(mut self, seconds: u64) -> Self {
        self.not_after = OffsetDateTime::now_utc() + Duration::from_secs(seconds);
        self
    }

    pub fn ended(mut self) -> Self {
        self.not_after = OffsetDateTime::now_utc() - Duration::from_secs(5);
        self
    }

    pub fn not_begun(mut self) -> Self {
        self.not_before = OffsetDateTime::now_utc() + Duration::from_secs(600);
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        let uri = |u: &String| SanType::URI(u.as_str().try_into().unwrap());
        params.subject_alt_names = self.uris.iter().map(uri).collect();
        params.extended_key_usages = self.usages.clone();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    }

    /// Signed by its own key: trusted by nobody.
    pub fn self_signed(&self, bundle: &str) -> Material {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let der = self.params().self_signed(&key).unwrap().der().to_vec();
        material(&der, &key, bundle, "")
    }
}

fn material(der: &[u8], key: &KeyPair, bundle: &str, ca: &str) -> Material {
    Material {
        certificate: format!("{}{ca}", encode_pem("CERTIFICATE", der)),
        key: Zeroizing::new(encode_pem("PRIVATE KEY", key.serialized_der())),
        bundle: bundle.to_owned(),
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let pem = encode_pem("CERTIFICATE", certificate.der());
        let hash = certificate_hash(certificate.der());
        Self { issuer: Issuer::new(params, key), pem, hash }
    }

    /// Trusting this CA.
    pub fn issue(&self, leaf: &Leaf) -> Material {
        self.issue_trusting(leaf, &self.pem)
    }

    pub fn issue_trusting(&self, leaf: &Leaf, bundle: &str) -> Material {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let der = leaf.params().signed_by(&key, &self.issuer).unwrap().der().to_vec();
        material(&der, &key, bundle, &self.pem)
    }

    pub fn identity(&self, uri: &str) -> std::sync::Arc<Identity> {
        std::sync::Arc::new(Identity::new(&self.issue(&leaf(uri))).unwrap())
    }
}
