//! AES-256-GCM over short values: nonce, ciphertext and tag in one.

use std::io;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use zeroize::Zeroizing;

use super::SecretError;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// A key that seals. Each seal takes a fresh random nonce.
pub(crate) struct Cipher(RandomizedNonceKey);

/// A new key from the system's randomness.
pub(super) fn random_key() -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
    rand::fill(&mut key).map_err(|_| io::Error::other("no randomness"))?;
    Ok(key)
}

impl Cipher {
    pub(super) fn new(key: &[u8]) -> Result<Self, SecretError> {
        let wrong = |_| io::Error::other("a data key has the wrong length");
        Ok(Self(RandomizedNonceKey::new(&AES_256_GCM, key).map_err(wrong)?))
    }

    pub(super) fn seal(&self, context: &[u8], value: &[u8]) -> Result<Vec<u8>, SecretError> {
        let mut body = Zeroizing::new(value.to_vec());
        let sealed = self.0.seal_in_place_append_tag(Aad::from(context), &mut *body);
        let nonce = sealed.map_err(|_| io::Error::other("sealing failed"))?;
        Ok([nonce.as_ref().as_slice(), body.as_slice()].concat())
    }

    /// `what` names the thing in the error.
    pub(super) fn open(&self, context: &[u8], sealed: &[u8], what: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let fails = || SecretError::does_not_open(what);
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(fails)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| fails())?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| fails())?.len();
        body.truncate(length);
        Ok(body)
    }
}
