//! Keys in memory, wrapped for the Raft log, and sealed for the disk.

use std::io;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of every key here.
pub(crate) const KEY_BYTES: usize = 32;

/// A key; its memory is cleared when it goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret([u8; KEY_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Secret {
    pub(crate) fn random() -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| io::Error::other("the system gives no randomness"))?;
        Ok(Self(key))
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A key that follows from this one, from which this one cannot be had back.
    pub(crate) fn derive(&self, what: &[u8]) -> Self {
        Self(provost_sealed::mac(&self.0, &[what]))
    }

    /// AES-256-GCM under a fresh nonce, which stands before the result.
    pub(crate) fn seal(&self, context: &[u8], value: &[u8]) -> io::Result<Vec<u8>> {
        let failed = |_| io::Error::other("sealing failed");
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &self.0).map_err(failed)?;
        let mut body = Zeroizing::new(value.to_vec());
        let nonce = cipher.seal_in_place_append_tag(Aad::from(context), &mut *body).map_err(failed)?;
        Ok([nonce.as_ref().as_slice(), body.as_slice()].concat())
    }

    /// `None`: under another key, for another context, or changed.
    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &self.0).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = cipher.open_in_place(nonce, Aad::from(context), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}
