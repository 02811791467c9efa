//! Bodies of audited calls: sealed and committed to under a subject's key.
//!
//! Purpose: the data plane seals, a node of the audit log opens; both through these functions, so
//! that what one writes the other reads. `docs/audit-format.md` describes the bytes.
//! Invariants: a body belongs to one place (tenant, subject, month, call, phase): moved to
//! another it does not open, and its commitment does not hold there. Equal bodies have unequal
//! commitments and unequal sealed bytes. Each body has a key of its own, derived from the
//! subject's, so that one body can be shown to somebody without showing the others.
//! Left out: where keys come from and how they end (`provost-audit-store`), redaction
//! (`provost-data-serve`).

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    constant_time::verify_slices_are_equal,
    digest, hmac,
};
use bytes::Bytes;
use provost_types::{Body, CallId, KeptBody, MAX_BODY_BYTES, Month, Phase, SealedBytes, SubjectKey};
use zeroize::Zeroizing;

/// The first byte of sealed bytes: how they are laid out.
const VERSION: u8 = 1;
/// The first line of a context.
const CONTEXT: &[u8] = b"provost audit body 1\n";
/// Bytes of the authentication tag.
const TAG_LEN: usize = 16;
/// What sealing adds to a body.
pub const OVERHEAD: usize = 1 + NONCE_LEN + TAG_LEN;
/// The most that is stored for one body.
pub const MAX_SEALED_BYTES: usize = MAX_BODY_BYTES + OVERHEAD;

/// Where a body belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// Whose key it is under: the principal's name.
    pub subject: &'a str,
    /// The month of the record's time.
    pub month: Month,
    /// The call.
    pub call_id: CallId,
    /// Which of the call's records.
    pub phase: Phase,
}

/// Whether bodies are stored, or only committed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Stored, sealed.
    #[default]
    Sealed,
    /// Committed to: whoever kept the body can show that it is the one.
    Commitment,
}

/// Sealing failed; the system gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body could not be sealed")]
pub struct SealError;

/// A body does not open, or is not the one that was committed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not laid out as a sealed body.
    #[error("the stored bytes are not a sealed body")]
    Form,
    /// Another key, another place, or other bytes.
    #[error("the body does not open: it was changed, or belongs to another record")]
    Seal,
    /// It opens, and is not what the record committed to.
    #[error("the body is not the one that the record committed to")]
    Commitment,
}

/// The key of one body: opens it and checks it, and nothing else.
pub struct BodyKey {
    /// Made ready once: it is used for the commitment and for the cipher.
    key: hmac::Key,
    context: Vec<u8>,
}

impl BodyKey {
    /// The key of the body that belongs at `place`.
    pub fn new(key: &SubjectKey, place: &Place<'_>) -> Self {
        let context = context(place);
        let derived = Zeroizing::new(mac(key.secret(), &[&context]));
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_slice()), context }
    }

    /// The commitment to a body.
    pub fn commit(&self, body: &[u8]) -> [u8; 32] {
        mac_with(&self.key, &[&[0], body])
    }

    fn cipher(&self) -> Option<RandomizedNonceKey> {
        let key = Zeroizing::new(mac_with(&self.key, &[&[1]]));
        RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).ok()
    }

    /// The body as it is stored. One copy of it is made, and encrypted in place.
    pub fn seal(&self, body: &[u8]) -> Result<Vec<u8>, SealError> {
        let cipher = self.cipher().ok_or(SealError)?;
        let mut out = Vec::with_capacity(body.len() + OVERHEAD);
        out.push(VERSION);
        out.extend_from_slice(&[0; NONCE_LEN]);
        out.extend_from_slice(body);
        let text = out.get_mut(1 + NONCE_LEN..).ok_or(SealError)?;
        let sealed = cipher.seal_in_place_separate_tag(Aad::from(&self.context), text);
        let (nonce, tag) = sealed.map_err(|_| SealError)?;
        out.get_mut(1..=NONCE_LEN).ok_or(SealError)?.copy_from_slice(nonce.as_ref());
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens stored bytes and checks them against the commitment.
    pub fn open(&self, stored: &[u8], commit: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (version, rest) = stored.split_first().ok_or(OpenError::Form)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::Form)?;
        if *version != VERSION || text.len() < TAG_LEN {
            return Err(OpenError::Form);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Form)?;
        let mut body = Zeroizing::new(text.to_vec());
        let cipher = self.cipher().ok_or(OpenError::Seal)?;
        let opened = cipher.open_in_place(nonce, Aad::from(&self.context), &mut body);
        let length = opened.map_err(|_| OpenError::Seal)?.len();
        body.truncate(length);
        self.check(&body, commit)?;
        Ok(body)
    }

    /// Whether `body` is the one that was committed to.
    pub fn check(&self, body: &[u8], commit: &[u8; 32]) -> Result<(), OpenError> {
        verify_slices_are_equal(&self.commit(body), commit).map_err(|_| OpenError::Commitment)
    }
}

/// A subject's key, made ready to derive the keys of its bodies: half of what a short derivation costs, paid once for as long
/// as the key is held.
pub struct ReadyKey {
    key: SubjectKey,
    mac: hmac::Key,
}

impl ReadyKey {
    /// Makes a key ready.
    pub fn new(key: SubjectKey) -> Self {
        let mac = hmac::Key::new(hmac::HMAC_SHA256, key.secret());
        Self { key, mac }
    }

    /// The key.
    pub fn key(&self) -> &SubjectKey {
        &self.key
    }

    /// The key of the body that belongs at `place`: what [`BodyKey::new`] makes.
    fn body(&self, place: &Place<'_>) -> BodyKey {
        let context = context(place);
        let derived = Zeroizing::new(mac_with(&self.mac, &[&context]));
        BodyKey { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_slice()), context }
    }
}

/// What the log is to hold of `body`: the commitment, and the sealed bytes if they are kept.
pub fn keep(
    key: &ReadyKey,
    place: &Place<'_>,
    body: &[u8],
    redaction: Option<[u8; 32]>,
    keep: Keep,
) -> Result<Body, SealError> {
    let own = key.body(place);
    let kept = match keep {
        Keep::Commitment => KeptBody::CommitmentOnly,
        Keep::Sealed if body.len() > MAX_BODY_BYTES => KeptBody::TooLong,
        Keep::Sealed => {
            let bytes = Bytes::from(own.seal(body)?);
            KeptBody::Sealed(SealedBytes { sha256: sha256(&bytes), bytes })
        }
    };
    Ok(Body { commit: own.commit(body), key: key.key.id, len: body.len() as u64, redaction, kept })
}

/// SHA-256, by which a record names what is stored for it.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// HMAC-SHA-256 over parts, one after the other.
pub fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    mac_with(&hmac::Key::new(hmac::HMAC_SHA256, key), parts)
}

fn mac_with(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Unambiguous: each text stands behind its length.
fn context(place: &Place<'_>) -> Vec<u8> {
    let phase = match place.phase {
        Phase::Intent => "intent",
        Phase::Outcome => "outcome",
        Phase::Denied => "denied",
        Phase::Event => "event",
    };
    let month = place.month.to_string();
    let mut out = CONTEXT.to_vec();
    for text in [place.tenant, place.subject, &month, phase] {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&place.call_id.0.to_be_bytes());
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use provost_types::{KeyId, Pseudonym};

    use super::*;

    fn key(n: u8) -> SubjectKey {
        SubjectKey::new(KeyId([n; 16]), Pseudonym([n; 16]), [n; 32])
    }

    fn ready(n: u8) -> ReadyKey {
        ReadyKey::new(key(n))
    }

    const PLACE: Place<'static> =
        Place { tenant: "acme", subject: "ana", month: Month::EPOCH, call_id: CallId(7), phase: Phase::Intent };

    fn sealed(body: &Body) -> &[u8] {
        match &body.kept {
            KeptBody::Sealed(sealed) => &sealed.bytes,
            other => panic!("not kept: {other:?}"),
        }
    }

    #[test]
    fn a_body_opens_at_its_place_and_under_its_key_only() {
        let body = br#"{"sql":"select 1"}"#;
        let kept = keep(&ready(1), &PLACE, body, None, Keep::Sealed).unwrap();
        let open = |k: u8, place: &Place<'_>| BodyKey::new(&key(k), place).open(sealed(&kept), &kept.commit);
        assert_eq!(open(1, &PLACE).unwrap().as_slice(), body);
        assert_eq!(open(2, &PLACE), Err(OpenError::Seal));
        let next = Month::from_number(PLACE.month.number() + 1);
        for (what, other) in [
            ("tenant", Place { tenant: "acm", ..PLACE }),
            ("subject", Place { subject: "sue", ..PLACE }),
            ("a border moved", Place { tenant: "acmea", subject: "na", ..PLACE }),
            ("month", Place { month: next, ..PLACE }),
            ("call", Place { call_id: CallId(8), ..PLACE }),
            ("phase", Place { phase: Phase::Outcome, ..PLACE }),
        ] {
            assert_eq!(open(1, &other), Err(OpenError::Seal), "{what}");
            let own = BodyKey::new(&key(1), &other);
            assert_eq!(own.check(body, &kept.commit), Err(OpenError::Commitment), "{what}");
        }
        assert_eq!(BodyKey::new(&key(1), &PLACE).open(sealed(&kept), &[0; 32]), Err(OpenError::Commitment));
        for cut in [0, 1, 12, 13, 28] {
            let cut = BodyKey::new(&key(1), &PLACE).open(&sealed(&kept)[..cut], &kept.commit);
            assert_eq!(cut, Err(OpenError::Form));
        }
    }

    #[test]
    fn long_bodies_are_committed_to_and_not_kept() {
        let long = vec![b'x'; MAX_BODY_BYTES + 1];
        let kept = keep(&ready(1), &PLACE, &long, None, Keep::Sealed).unwrap();
        assert_eq!((kept.kept, kept.len), (KeptBody::TooLong, long.len() as u64));
        assert!(BodyKey::new(&key(1), &PLACE).check(&long, &kept.commit).is_ok());
        let kept = keep(&ready(1), &PLACE, &long[1..], None, Keep::Sealed).unwrap();
        assert_eq!(sealed(&kept).len(), MAX_SEALED_BYTES);
        let kept = keep(&ready(1), &PLACE, b"x", None, Keep::Commitment).unwrap();
        assert_eq!(kept.kept, KeptBody::CommitmentOnly);
    }

    proptest! {
        /// No change of any byte opens, and no other body fits the commitment.
        #[test]
        fn nothing_but_the_body_fits(body in prop::collection::vec(any::<u8>(), 0..200), other: Vec<u8>, at: usize, bit in 0u8..8) {
            let kept = keep(&ready(3), &PLACE, &body, None, Keep::Sealed).unwrap();
            let own = BodyKey::new(&key(3), &PLACE);
            let opened = own.open(sealed(&kept), &kept.commit).unwrap();
            prop_assert_eq!(opened.as_slice(), &*body);
            let mut changed = sealed(&kept).to_vec();
            let at = at % changed.len();
            changed[at] ^= 1 << bit;
            prop_assert!(own.open(&changed, &kept.commit).is_err());
            if other != body {
                prop_assert!(own.check(&other, &kept.commit).is_err());
            }
            let again = keep(&ready(3), &PLACE, &body, None, Keep::Sealed).unwrap();
            prop_assert_ne!(sealed(&again), sealed(&kept), "a nonce came twice");
        }
    }
}
