//! Requests for certificates (PKCS #10, RFC 2986). Only the key in them counts.
//!
//! One kind of key is taken: ECDSA on P-256 with SHA-256. The signature shows that the sender has
//! the private key; the names in the request are never read.

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use provost_wire::tls::encode_pem;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer,
};
use zeroize::Zeroizing;

use super::{IdentityError, error::ca};

/// Bytes of a request.
const MAX_REQUEST_BYTES: usize = 8 << 10;

/// The public key of a node that proved to have the private one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKey(Vec<u8>);

impl NodeKey {
    /// The key of a request whose signature is good.
    pub fn of_request(der: &[u8]) -> Result<Self, IdentityError> {
        let refused = |cause: &str| IdentityError::Request(cause.to_owned());
        if der.len() > MAX_REQUEST_BYTES {
            return Err(refused("it is too large"));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| refused("it is no PKCS #10"))?;
        if !rest.is_empty() {
            return Err(refused("it has bytes after its end"));
        }
        let info = &request.certification_request_info;
        let key = &info.subject_pki;
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let is_p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256);
        if !is_p256 || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(refused("its key is not ECDSA on P-256 with SHA-256"));
        }
        let point = key.subject_public_key.data.to_vec();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| refused("its signature is not of its key"))?;
        Ok(Self(point))
    }

    /// SHA-256 of the key, hexadecimal: tells nodes from each other.
    pub fn hash(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, &self.0))
    }
}

impl PublicKeyData for NodeKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A new private key and the request for its certificate.
pub struct KeyRequest {
    /// PKCS #8, PEM.
    pub key: Zeroizing<String>,
    /// PKCS #10, DER, without names.
    pub request: Vec<u8>,
}

impl KeyRequest {
    /// Makes a key from the system's randomness.
    pub fn make() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(ca)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(ca)?.der().to_vec();
        let key = Zeroizing::new(encode_pem("PRIVATE KEY", key.serialized_der()));
        Ok(Self { key, request })
    }
}
