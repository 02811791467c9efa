//! What tokens of guards hold: values under the cluster's keys.
//!
//! AES-256-GCM-SIV (RFC 8452) under a key for the tenant alone, always with the same nonce: which makes it
//! deterministic, so that equal values give equal tokens, and tells whoever has two tokens no more than
//! whether their values are equal. In front stands the key's term, in as few bytes as it needs.
//!
//! Invariants: a token of another tenant, of other kinds, or with a changed bit opens as one that never was
//! a token; so does one whose key is gone (`SealKeys`: a day after the cluster let it go, which is seven rotations
//! after the one that replaced it).

use std::{fmt, sync::Arc};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use provost_data_guards::Vault;
use provost_types::{Name, PrincipalRef};

use crate::SealKeys;

/// Separates these keys from all others that are made of the same ones.
const PURPOSE: &str = "provost 2026 tokens of guards v1";
const PSEUDONYM: &str = "provost 2026 principals for external guards v1";
const PSEUDONYM_BYTES: usize = 16;
/// Bits of a term in one byte; the highest says that another follows.
const TERM_BITS: u32 = 7;
const MORE: u8 = 1 << TERM_BITS;

/// Seals the values of one tenant.
pub(crate) struct TenantVault {
    keys: Arc<SealKeys>,
    tenant: Name,
}

impl fmt::Debug for TenantVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantVault")
    }
}

impl TenantVault {
    pub(crate) fn new(keys: Arc<SealKeys>, tenant: Name) -> Self {
        Self { keys, tenant }
    }

    fn key(&self, key: &[u8; 32]) -> Option<LessSafeKey> {
        let material = [key.as_slice(), self.tenant.as_str().as_bytes()].concat();
        let derived = blake3::derive_key(PURPOSE, &material);
        UnboundKey::new(&AES_256_GCM_SIV, &derived).ok().map(LessSafeKey::new)
    }
}

/// What stands for a principal where others are told of calls: the same as long as the key is.
pub(crate) fn pseudonym(keys: &SealKeys, principal: &PrincipalRef) -> String {
    let (_, key) = keys.sealing();
    let who = [key.as_slice(), principal.tenant.as_str().as_bytes(), b"/", principal.name.as_str().as_bytes()].concat();
    let derived = blake3::derive_key(PSEUDONYM, &who);
    let hex = blake3::Hash::from_bytes(derived).to_hex();
    hex.chars().take(2 * PSEUDONYM_BYTES).collect()
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl Vault for TenantVault {
    fn seal(&self, kinds: &str, value: &[u8]) -> Option<Vec<u8>> {
        let (term, key) = self.keys.sealing();
        let mut inside = value.to_vec();
        self.key(&key)?.seal_in_place_append_tag(nonce(), Aad::from(kinds), &mut inside).ok()?;
        let mut sealed = written(term);
        sealed.append(&mut inside);
        Some(sealed)
    }

    fn open(&self, kinds: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (term, inside) = read(sealed)?;
        let key = self.keys.of(term)?;
        let mut inside = inside.to_vec();
        let plain = self.key(&key)?.open_in_place(nonce(), Aad::from(kinds), &mut inside).ok()?;
        Some(plain.to_vec())
    }
}

/// A term, seven bits a byte, lowest first.
fn written(mut term: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (term & u64::from(MORE - 1)) as u8;
        term >>= TERM_BITS;
        if term == 0 {
            out.push(low);
            return out;
        }
        out.push(low | MORE);
    }
}

/// The term, and what follows it; `None` if it is not as [`written`] writes it.
fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let len = bytes.iter().position(|b| b & MORE == 0)? + 1;
    let (head, rest) = bytes.split_at_checked(len)?;
    let mut term = 0u64;
    for (byte, shift) in head.iter().zip((0..u64::BITS).step_by(TERM_BITS as usize)) {
        term |= u64::from(byte & (MORE - 1)).checked_shl(shift)?;
    }
    (written(term) == head).then_some((term, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn vault(keys: &Arc<SealKeys>, tenant: &str) -> TenantVault {
        TenantVault::new(keys.clone(), Name::new(tenant).unwrap())
    }

    #[test]
    fn equal_values_give_equal_tokens_and_only_the_tenant_opens_them() {
        let keys = SealKeys::own([9; 32]);
        let acme = vault(&keys, "acme");
        let sealed = acme.seal("card", b"4111 1111 1111 1111").unwrap();
        assert_eq!(acme.seal("card", b"4111 1111 1111 1111").unwrap(), sealed);
        assert_ne!(acme.seal("card", b"4111 1111 1111 1112").unwrap(), sealed);
        assert_eq!(acme.open("card", &sealed).unwrap(), b"4111 1111 1111 1111");
        assert_eq!(acme.open("phone", &sealed), None, "the kinds are part of it");
        assert_eq!(vault(&keys, "globex").open("card", &sealed), None);
        assert_ne!(vault(&keys, "globex").seal("card", b"4111 1111 1111 1111").unwrap(), sealed);
        assert_eq!(vault(&SealKeys::own([8; 32]), "acme").open("card", &sealed), None, "another cluster");
    }

    #[test]
    fn a_changed_bit_or_length_opens_nothing() {
        let acme = vault(&SealKeys::own([9; 32]), "acme");
        let sealed = acme.seal("email", b"ana@example.com").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(acme.open("email", &changed), None, "bit {bit} of byte {at}");
            }
            assert_eq!(acme.open("email", &sealed[..at]), None, "cut at {at}");
        }
        // The term in more bytes than it needs.
        assert_eq!(acme.open("email", &[&[sealed[0] | MORE, 0], &sealed[1..]].concat()), None);
    }

    #[test]
    fn a_token_of_a_key_that_is_gone_is_text() {
        let keys = SealKeys::own([9; 32]);
        keys.set(&BTreeMap::from([(300, [3; 32])]));
        let acme = vault(&keys, "acme");
        let old = acme.seal("card", b"4111111111111111").unwrap();
        keys.set(&BTreeMap::from([(301, [4; 32])]));
        assert!(acme.open("card", &old).is_some(), "a key that was let go opens for a day");
        assert_ne!(acme.seal("card", b"4111111111111111").unwrap(), old);
        // A node that was started since, too, while the cluster has the key.
        let started = SealKeys::own([9; 32]);
        started.set(&BTreeMap::from([(300, [3; 32]), (301, [4; 32])]));
        assert_eq!(vault(&started, "acme").open("card", &old).as_deref(), Some(&b"4111111111111111"[..]));
        let later = SealKeys::own([9; 32]);
        later.set(&BTreeMap::from([(301, [4; 32])]));
        assert_eq!(vault(&later, "acme").open("card", &old), None);
        // The same term of another cluster, or of a key that was made anew.
        later.set(&BTreeMap::from([(300, [5; 32])]));
        assert_eq!(vault(&later, "acme").open("card", &old), None);
    }

    #[test]
    fn a_term_is_written_in_one_way() {
        for term in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let bytes = written(term);
            assert_eq!(read(&bytes), Some((term, [].as_slice())), "{term}");
            assert!(bytes.len() <= 10);
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[MORE, 0]), None);
        assert_eq!(read(&[255; 11]), None);
    }
}
