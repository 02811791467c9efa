//! The port to whatever keeps the key that wraps data keys.

use zeroize::Zeroizing;

use super::SecretError;

/// Wraps data keys with a key that is kept elsewhere than the state.
///
/// Calls are rare: each data key is unwrapped once a process. They may block for seconds (a
/// provider that waits for a network makes room for the runtime by itself).
pub trait KeyProvider: Send + Sync {
    /// Encrypts a data key.
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, SecretError>;
    /// Decrypts it.
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError>;
}
