//! A private key that signs for a client (RFC 7523).

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use provost_types::JwtAlgorithm;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::UpstreamError;

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// The key, read once.
pub(crate) struct SigningKey {
    pair: Pair,
    algorithm: JwtAlgorithm,
    key_id: Option<String>,
}

impl SigningKey {
    /// Reads a PKCS #8 key in PEM. What is wrong with it is told without it.
    pub(crate) fn new(pem: &str, algorithm: JwtAlgorithm, key_id: Option<String>) -> Result<Self, UpstreamError> {
        let unusable = |why: &str| {
            UpstreamError::Config(format!("the key of privateKeyJwt {why}; give one for {}", algorithm.as_str()))
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable("is no PKCS #8 in PEM"))?;
        let bytes = der.secret_pkcs8_der();
        let fits_not = |_| unusable("is of another kind, or damaged");
        let pair = match algorithm {
            JwtAlgorithm::ES256 => {
                Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes).map_err(fits_not)?)
            }
            JwtAlgorithm::RS256 => Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(bytes).map_err(fits_not)?)),
            JwtAlgorithm::EdDSA => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(bytes).map_err(fits_not)?),
        };
        Ok(Self { pair, algorithm, key_id })
    }

    /// A signed JWT with these claims.
    pub(super) fn sign(&self, claims: &Value) -> Result<String, UpstreamError> {
        let mut header = json!({"alg": self.algorithm.as_str(), "typ": "JWT"});
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(claims));
        let failed = |_| UpstreamError::Token("signing for the client failed".to_owned());
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), text.as_bytes()).map_err(failed)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).map_err(failed)?;
                signature
            }
        };
        Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}
