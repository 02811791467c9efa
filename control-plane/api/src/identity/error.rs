//! Why an identity cannot be given, taken or kept.

use provost_wire::{admin::Failure, tls::TlsError};

use crate::{ControlError, ErrorKind, SecretError};

/// A failure of joining, renewing or issuing. Never carries any part of a token or key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A text that is no join token.
    #[error("the join token has not the form pv1.CA.ID.SECRET: {0}")]
    Token(&'static str),
    /// A request for a certificate that cannot be used.
    #[error("the request for a certificate cannot be used: {0}")]
    Request(String),
    /// The CA's certificate or key cannot be used.
    #[error("the cluster's CA cannot be used: {0}")]
    Ca(String),
    /// The other side refused, or could not be asked.
    #[error("{0}")]
    Refused(Failure),
    /// The other side answered with something that was not asked for.
    #[error("the answer of the control plane cannot be used: {0}")]
    Answer(String),
    /// TLS or files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The CA's key does not open.
    #[error(transparent)]
    Sealed(#[from] SecretError),
    /// The node's own state.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl IdentityError {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            IdentityError::Token(_) => "PV-JOIN-TOKEN",
            IdentityError::Request(_) => "PV-JOIN-CSR",
            IdentityError::Ca(_) => "PV-CA-KEY",
            IdentityError::Refused(failure) => &failure.code,
            IdentityError::Answer(_) => "PV-JOIN-ANSWER",
            IdentityError::Tls(error) => error.code(),
            IdentityError::Sealed(error) => error.code(),
            IdentityError::Control(error) => error.code(),
        }
    }
}

impl From<IdentityError> for ControlError {
    fn from(error: IdentityError) -> Self {
        let kind = match &error {
            IdentityError::Token(_) | IdentityError::Request(_) => ErrorKind::Invalid,
            IdentityError::Refused(_) => ErrorKind::Refused,
            IdentityError::Control(inner) => return inner.clone(),
            _ => ErrorKind::Internal,
        };
        ControlError::new(kind, error.code(), error.to_string(), "")
    }
}

pub(super) fn ca(error: impl ToString) -> IdentityError {
    IdentityError::Ca(error.to_string())
}
