//! Signatures of publishers: Ed25519 (RFC 8032) over the manifest.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::{AsDer, Pkcs8V1Der},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use provost_types::PublisherKey;
use serde::{Deserialize, Serialize};

use crate::PackageError;

/// What is signed begins with this, so that a signature for something else is never one of a package.
const CONTEXT: &[u8] = b"provost package 1\n";
/// Bytes of a signature, and of its key, in hexadecimal digits.
const SIGNATURE_DIGITS: usize = 128;

/// Who signed a package, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    /// The key, as a `Publisher` names it.
    pub key: PublisherKey,
    /// 128 hexadecimal digits.
    signature: String,
}

impl Signature {
    /// Whether it is of this manifest.
    pub(crate) fn fits(&self, manifest: &[u8]) -> bool {
        let Some(signature) = self.bytes() else { return false };
        UnparsedPublicKey::new(&ED25519, self.key.as_bytes()).verify(&message(manifest), &signature).is_ok()
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        let digits = self.signature.as_bytes();
        // One form only: digits in lower case.
        let plain = digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != SIGNATURE_DIGITS || !plain {
            return None;
        }
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).ok());
        pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
    }
}

fn message(manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, digest(&SHA256, manifest).as_ref()].concat()
}

/// A publisher's private key.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new one.
    pub fn generate() -> Result<Self, PackageError> {
        let made = Ed25519KeyPair::generate();
        Ok(Self(made.map_err(|_| PackageError::Key("the system gave no randomness for a key".into()))?))
    }

    /// From PKCS#8 (RFC 5958), DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, PackageError> {
        let pair = Ed25519KeyPair::from_pkcs8(der).or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der));
        Ok(Self(pair.map_err(|e| PackageError::Key(format!("this is no Ed25519 key in PKCS#8: {e}")))?))
    }

    /// As PKCS#8, DER: a secret.
    pub fn to_pkcs8(&self) -> Result<Pkcs8V1Der<'static>, PackageError> {
        self.0.as_der().map_err(|_| PackageError::Key("the key cannot be written".into()))
    }

    /// What others check signatures with.
    pub fn public(&self) -> PublisherKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublisherKey::from_bytes(bytes)
    }

    pub(crate) fn sign(&self, manifest: &[u8]) -> Signature {
        let signed = self.0.sign(&message(manifest));
        let signature = signed.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Signature { key: self.public(), signature }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}
