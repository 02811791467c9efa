use provost_types::{FileDigest, Name};

/// Why a package is not one, or not to be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Not a package, or not in its one form.
    #[error("this is no package: {}", shown(.0))]
    Format(String),
    /// Larger than packages may be.
    #[error("a package of {bytes} bytes is larger than the {limit} that are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// A part, or the package as a whole, is not what its digest says.
    #[error("{what} has the digest {found}, and {expected} was expected: it was changed or damaged")]
    Digest {
        /// The part's name, or `the package`.
        what: String,
        /// What was named.
        expected: FileDigest,
        /// What it is.
        found: FileDigest,
    },
    /// Nobody signed it.
    #[error("package {name} {version} is not signed")]
    Unsigned {
        /// The plugin.
        name: Name,
        /// Its version.
        version: String,
    },
    /// Signed by a key that is not one of the publisher's.
    #[error("package {name} {version} is signed by the key {key}, which is not trusted for publisher {publisher}")]
    UnknownPublisher {
        /// The plugin.
        name: Name,
        /// Its version.
        version: String,
        /// The publisher it names.
        publisher: Name,
        /// The key that signed it.
        key: String,
    },
    /// The signature is not of this manifest.
    #[error("the signature of package {name} {version} does not fit its manifest: it was changed after it was signed")]
    BadSignature {
        /// The plugin.
        name: Name,
        /// Its version.
        version: String,
    },
    /// A private key that cannot be read or made.
    #[error("{0}")]
    Key(String),
}

impl PackageError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            PackageError::Format(_) => "PV-PACKAGE-FORMAT",
            PackageError::TooLarge { .. } => "PV-PACKAGE-SIZE",
            PackageError::Digest { .. } => "PV-PACKAGE-DIGEST",
            PackageError::Unsigned { .. } | PackageError::BadSignature { .. } => "PV-PACKAGE-SIGNATURE",
            PackageError::UnknownPublisher { .. } => "PV-PACKAGE-PUBLISHER",
            PackageError::Key(_) => "PV-PACKAGE-KEY",
        }
    }
}

/// Names in a file that is no package are anybody's: none of them steers a terminal.
fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
