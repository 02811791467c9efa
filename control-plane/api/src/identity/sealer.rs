//! The port to what seals the CA's private key.

use zeroize::Zeroizing;

use crate::{SecretError, Secrets};

/// Seals bytes so that they may be replicated, and opens them on every control-plane node.
pub trait KeySealer: Send + Sync {
    /// Seals; what comes out opens only with the same context.
    fn seal(&self, context: &str, bytes: &[u8]) -> Result<Vec<u8>, SecretError>;
    /// Opens.
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError>;
}

impl KeySealer for Secrets {
    fn seal(&self, context: &str, bytes: &[u8]) -> Result<Vec<u8>, SecretError> {
        self.seal_bytes(context, bytes)
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.open_bytes(context, sealed)
    }
}
