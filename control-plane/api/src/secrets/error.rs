//! Why sealing or opening failed.

use std::io;

use provost_types::Name;

/// Why a secret cannot be sealed or unsealed. Never carries any part of a value or key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such secret.
    #[error("Secret/{tenant}/{name} does not exist")]
    NotFound {
        /// The tenant.
        tenant: Name,
        /// The secret.
        name: Name,
    },
    /// It exists and has no value.
    #[error("Secret/{tenant}/{name} has no value; set it with `provost secret set {name}`")]
    NoValue {
        /// The tenant.
        tenant: Name,
        /// The secret.
        name: Name,
    },
    /// The ciphertext or the data key does not open.
    #[error(
        "{what} does not open with this node's key; was the key file replaced, or the data copied from another cluster?"
    )]
    DoesNotOpen {
        /// What.
        what: String,
    },
    /// The key provider failed.
    #[error("the key provider failed: {0}")]
    Provider(#[from] io::Error),
}

impl SecretError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SecretError::NotFound { .. } => "PV-SECRET-NOT-FOUND",
            SecretError::NoValue { .. } => "PV-SECRET-NO-VALUE",
            SecretError::DoesNotOpen { .. } => "PV-SECRET-KEY",
            SecretError::Provider(_) => "PV-SECRET-PROVIDER",
        }
    }

    pub(crate) fn does_not_open(what: impl Into<String>) -> Self {
        SecretError::DoesNotOpen { what: what.into() }
    }
}
