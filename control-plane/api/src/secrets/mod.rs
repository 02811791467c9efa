//! Sealing of secrets. A value is sealed before it is proposed, so logs, snapshots and backups
//! hold ciphertext only.
//!
//! A random data key seals values (AES-256-GCM, random nonce). What a value belongs to is
//! authenticated with it: cluster, kind, tenant, name, version and the data key's term. The data
//! keys are in the replicated state (the *ring*, by term), wrapped by a [`KeyProvider`] that is
//! not: whoever has the state alone reads nothing.
//!
//! Invariants: a value or key is never logged, printed or put into an error; a ring is opened only
//! by the provider; a key seals for the cluster that made it, so a restored cluster makes its own
//! before it seals anything.
//! Left out: who may read a secret (the data plane asks for what a plugin names), and renewing the
//! token of a remote provider (its agent does).

mod cipher;
mod error;
mod first_key;
mod local;
mod opens;
mod provider;
mod ring;
mod rotate;
mod sealer;
mod source;
mod vault;

pub use error::SecretError;
pub(crate) use first_key::make_first_key;
pub use local::LocalFileKey;
pub(crate) use opens::opens_newest_key;
pub use provider::KeyProvider;
pub use rotate::KeyRotation;
pub use sealer::Secrets;
pub use source::SealedSource;
pub use vault::{VaultConfig, VaultToken, VaultTransit};

/// Bytes of a secret's value.
pub(crate) const MAX_SECRET_BYTES: usize = 64 << 10;
