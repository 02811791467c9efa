//! Ed25519 through aws-lc-rs.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use provost_audit_core::NoteVerifier;

/// Checks Ed25519 signatures (RFC 8032).
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519;

impl NoteVerifier for Ed25519 {
    fn verify(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
    }
}
