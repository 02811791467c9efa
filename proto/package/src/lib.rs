//! Plugin packages: one file with manifest, parts and a publisher's signature.
//!
//! Purpose: whoever makes a package, stores it or runs it reads it through these functions. A package is a tar
//! archive: `manifest.json`, then the parts that the manifest lists, then `signature.json` if it is signed.
//! `docs/plugins.md` describes it for authors.
//! Invariants: a package has one encoding, so that its digest names its content and nothing hides between entries.
//! The manifest has the digest of each part, and the signature is of the manifest: it covers everything.
//! A [`Package`] is whole: each part was compared with its digest when it was read.
//! Left out: who is trusted (resources of kind `Publisher`), where packages are kept (`provost-control-api`), what
//! a part means (the executors).

mod archive;
mod error;
mod manifest;
mod package;
mod sign;

pub use error::PackageError;
pub use manifest::{COMPONENT, DOCS, Manifest, Part, Wants};
pub use package::{MAX_PACKAGE_BYTES, MAX_PARTS, Package, Source};
pub use sign::{Signature, SigningKey};
