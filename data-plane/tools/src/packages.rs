//! Where packages of plugins come from.

use bytes::Bytes;
use provost_types::{BoxFuture, FileDigest, Name};

pub use provost_package::MAX_PACKAGE_BYTES;

/// Why a package did not come. Another try may bring it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchFailed(pub String);

/// The way to the control plane's packages.
pub trait PackagePort: Send + Sync {
    /// The bytes of a tenant's package, at most [`MAX_PACKAGE_BYTES`]. Whoever asked looks whether they are those of
    /// the digest. Ends by itself.
    fn fetch<'a>(&'a self, tenant: &'a Name, digest: FileDigest) -> BoxFuture<'a, Result<Bytes, FetchFailed>>;
}
