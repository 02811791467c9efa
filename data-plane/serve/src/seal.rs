//! Sealed texts that clients carry for us.
//!
//! AES-256-GCM under a key derived for one purpose. In front stand the key's term and a random nonce, so
//! any node with the same keys opens what another sealed. At 2^32 texts a key should be changed.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::SealKeys;

/// The longest sealed text that is opened, in characters.
const MAX_SEALED_CHARS: usize = 64 * 1024;
/// Bytes of the key's term.
const TERM_LEN: usize = size_of::<u64>();

/// Seals and opens for one purpose.
pub(crate) struct Sealer {
    keys: Arc<SealKeys>,
    /// Separates the keys of different uses.
    purpose: &'static str,
}

/// The machine has no randomness, or the key is unusable: nothing can be sealed.
#[derive(Debug, thiserror::Error)]
#[error("PV-SEAL-FAILED: the value could not be sealed")]
pub struct SealFailed;

impl Sealer {
    pub(crate) fn new(keys: Arc<SealKeys>, purpose: &'static str) -> Self {
        Self { keys, purpose }
    }

    fn key(&self, key: &[u8; 32]) -> Option<LessSafeKey> {
        let derived = blake3::derive_key(self.purpose, key);
        UnboundKey::new(&AES_256_GCM, &derived).ok().map(LessSafeKey::new)
    }

    /// Base64url of term, nonce, ciphertext and tag. `bound` must be given again to open.
    pub(crate) fn seal(&self, plain: &[u8], bound: &[u8]) -> Result<String, SealFailed> {
        let (term, key) = self.keys.sealing();
        let mut nonce = [0u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealFailed)?;
        let mut inside = plain.to_vec();
        self.key(&key)
            .ok_or(SealFailed)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut inside)
            .map_err(|_| SealFailed)?;
        let mut sealed = term.to_be_bytes().to_vec();
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut inside);
        Ok(BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What was sealed; `None` if a single bit of it or of `bound` is another, or its key is gone.
    pub(crate) fn open(&self, sealed: &str, bound: &[u8]) -> Option<Vec<u8>> {
        if sealed.len() > MAX_SEALED_CHARS {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (term, rest) = bytes.split_first_chunk::<TERM_LEN>()?;
        let key = self.keys.of(u64::from_be_bytes(*term))?;
        let (nonce, inside) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut inside = inside.to_vec();
        let plain = self.key(&key)?.open_in_place(nonce, Aad::from(bound), &mut inside).ok()?;
        Some(plain.to_vec())
    }
}

/// Ids that are drawn at a time: a draw costs nearly the same for one and for this many.
const IDS_AT_ONCE: usize = 16;

/// Several times 128 random bits.
pub(crate) fn random_ids() -> Result<[u128; IDS_AT_ONCE], SealFailed> {
    let mut bytes = [0u8; IDS_AT_ONCE * 16];
    rand::fill(&mut bytes).map_err(|_| SealFailed)?;
    let mut ids = [0; IDS_AT_ONCE];
    for (id, bytes) in ids.iter_mut().zip(bytes.as_chunks::<16>().0) {
        *id = u128::from_be_bytes(*bytes);
    }
    Ok(ids)
}

/// 128 random bits.
pub(crate) fn random_id() -> Result<u128, SealFailed> {
    let mut bytes = [0u8; 16];
    rand::fill(&mut bytes).map_err(|_| SealFailed)?;
    Ok(u128::from_be_bytes(bytes))
}
