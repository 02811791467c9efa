//! Why an identity cannot be used or a connection cannot be made.

use std::{io, path::PathBuf};

use crate::tls::NameError;

/// A failure of TLS or of what it needs. Never carries any part of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others can read the private key.
    #[error("{} can be read by others (mode {mode:03o}); run `chmod 600` on it", path.display())]
    KeyMode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A certificate, key or bundle is unusable, or they do not belong together.
    #[error("{what}: {cause}")]
    Certificate {
        /// Which of them.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// The certificate does not name a node.
    #[error("the certificate does not name a node of a cluster: {0}")]
    Name(String),
    /// A replacement names another node.
    #[error("the new certificate is for {found}; this node is {own}")]
    OtherNode {
        /// This node.
        own: String,
        /// The certificate's.
        found: String,
    },
    /// An operator's certificate has ended, or has not begun.
    #[error("the certificate of {node} holds from {from} until {until}, and not now")]
    NotNow {
        /// Whose.
        node: String,
        /// From when.
        from: String,
        /// Until when.
        until: String,
    },
    /// Not `host:port`.
    #[error("`{0}` is not an address: write it as host:port")]
    Address(String),
    /// Nothing answers there.
    #[error("no answer from {address}: {cause}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        cause: io::Error,
    },
    /// The other side is not whom it must be.
    #[error("the server at {address} was refused, or refused this node: {cause}")]
    Peer {
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// The TLS library refused a configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            TlsError::File { .. } => "PV-TLS-FILE",
            TlsError::KeyMode { .. } => "PV-TLS-KEY-MODE",
            TlsError::Certificate { .. } | TlsError::Setup(_) => "PV-TLS-CERTIFICATE",
            TlsError::Name(_) | TlsError::OtherNode { .. } => "PV-TLS-NAME",
            TlsError::NotNow { .. } => "PV-TLS-EXPIRED",
            TlsError::Address(_) => "PV-TLS-ADDRESS",
            TlsError::Unreachable { .. } => "PV-TLS-UNREACHABLE",
            TlsError::Peer { .. } => "PV-TLS-PEER",
        }
    }

    pub(crate) fn certificate(what: &'static str, cause: impl ToString) -> Self {
        Self::Certificate { what, cause: cause.to_string() }
    }
}

impl From<NameError> for TlsError {
    fn from(error: NameError) -> Self {
        Self::Name(error.to_string())
    }
}
