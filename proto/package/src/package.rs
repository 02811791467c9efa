//! A package that was read, or made.

use std::ops::Range;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use provost_types::{FileDigest, PublisherKey};

use crate::{
    Manifest, PackageError, Part, Signature, SigningKey,
    archive::{self, MANIFEST, SIGNATURE},
};

/// The largest package.
pub const MAX_PACKAGE_BYTES: u64 = 64 << 20;
/// Files in one package, beside manifest and signature.
pub const MAX_PARTS: usize = 32;

/// A file that becomes a part.
#[derive(Clone, Debug)]
pub struct Source {
    /// The part's name.
    pub name: String,
    /// Its content.
    pub content: Bytes,
}

/// A whole package: every part is what the manifest says.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    bytes: Bytes,
    digest: FileDigest,
    manifest: Manifest,
    manifest_at: Range<usize>,
    /// Where the parts are, in the manifest's order.
    parts: Vec<Range<usize>>,
    signature: Option<Signature>,
}

impl Package {
    /// Makes a package of `sources`, in their order; what the manifest said of parts is replaced.
    pub fn make(mut manifest: Manifest, sources: &[Source], key: Option<&SigningKey>) -> Result<Self, PackageError> {
        manifest.parts = sources
            .iter()
            .map(|s| Part { name: s.name.clone(), bytes: s.content.len() as u64, digest: digest_of(&s.content) })
            .collect();
        manifest.check()?;
        let manifest = to_json(&manifest)?;
        let signature = key.map(|key| to_json(&key.sign(&manifest))).transpose()?;
        let parts = sources.iter().map(|s| (s.name.as_str(), &*s.content));
        Self::read(encode(&manifest, parts, signature.as_deref())?.into())
    }

    /// The same with another signature, or the first.
    pub fn signed(&self, key: &SigningKey) -> Result<Self, PackageError> {
        let manifest = &self.bytes[self.manifest_at.clone()];
        let signature = to_json(&key.sign(manifest))?;
        Self::read(encode(manifest, self.contents(), Some(&signature))?.into())
    }

    /// Reads a package and checks all that can be checked without knowing who is trusted.
    pub fn read(bytes: Bytes) -> Result<Self, PackageError> {
        let size = bytes.len() as u64;
        if size > MAX_PACKAGE_BYTES {
            return Err(PackageError::TooLarge { bytes: size, limit: MAX_PACKAGE_BYTES });
        }
        let mut entries = archive::read(&bytes)?.into_iter().peekable();
        let first = entries.next_if(|(name, _)| name == MANIFEST);
        let (_, manifest_at) =
            first.ok_or_else(|| PackageError::Format(format!("it does not begin with {MANIFEST}")))?;
        let manifest = Manifest::parse(&bytes[manifest_at.clone()])?;
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for part in &manifest.parts {
            let found = entries.next_if(|(name, _)| *name == part.name);
            let (_, at) = found.ok_or_else(|| PackageError::Format(format!("the part `{}` is missing", part.name)))?;
            let found = digest_of(&bytes[at.clone()]);
            if found != part.digest || at.len() as u64 != part.bytes {
                let (what, expected) = (part.name.clone(), part.digest);
                return Err(PackageError::Digest { what, expected, found });
            }
            parts.push(at);
        }
        let signature_at = entries.next_if(|(name, _)| name == SIGNATURE).map(|(_, at)| at);
        if let Some((name, _)) = entries.next() {
            return Err(PackageError::Format(format!("`{name}` is not in the manifest, or not in its place")));
        }
        let unread = |e: serde_json::Error| PackageError::Format(format!("{SIGNATURE}: {e}"));
        let signature: Option<Signature> =
            signature_at.map(|at| serde_json::from_slice(&bytes[at]).map_err(unread)).transpose()?;
        let package = Self { digest: digest_of(&bytes), bytes, manifest, manifest_at, parts, signature };
        package.check_form()?;
        Ok(package)
    }

    /// The package has the one form that its content has: nothing hides in headers, between entries, behind the end.
    fn check_form(&self) -> Result<(), PackageError> {
        let (manifest, signature) = (to_json(&self.manifest)?, self.signature.as_ref().map(to_json).transpose()?);
        if encode(&manifest, self.contents(), signature.as_deref())? != self.bytes {
            let text = "it is not in the form that `provost plugin build` writes; build it again";
            return Err(PackageError::Format(text.into()));
        }
        Ok(())
    }

    fn contents(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let names = self.manifest.parts.iter().map(|part| part.name.as_str());
        names.zip(self.parts.iter().map(|at| &self.bytes[at.clone()]))
    }

    /// Whether its publisher signed it: with one of `trusted`, the keys of the publisher that the manifest names.
    pub fn check_signature(&self, trusted: &[PublisherKey]) -> Result<(), PackageError> {
        let (name, version) = (self.manifest.name.clone(), self.manifest.version.to_string());
        let Some(signature) = &self.signature else { return Err(PackageError::Unsigned { name, version }) };
        if !signature.fits(&self.bytes[self.manifest_at.clone()]) {
            return Err(PackageError::BadSignature { name, version });
        }
        if !trusted.contains(&signature.key) {
            let (publisher, key) = (self.manifest.publisher.clone(), signature.key.to_string());
            return Err(PackageError::UnknownPublisher { name, version, publisher, key });
        }
        Ok(())
    }

    /// Whether it is the one that was asked for.
    pub fn check_digest(&self, expected: FileDigest) -> Result<(), PackageError> {
        if self.digest == expected {
            return Ok(());
        }
        Err(PackageError::Digest { what: "the package".into(), expected, found: self.digest })
    }

    /// SHA-256 of the file: its name in the store.
    pub fn digest(&self) -> FileDigest {
        self.digest
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Who signed it.
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    /// A part's content; no copy.
    pub fn part(&self, name: &str) -> Option<Bytes> {
        let at = self.manifest.parts.iter().position(|part| part.name == name)?;
        Some(self.bytes.slice(self.parts.get(at)?.clone()))
    }

    /// The file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

fn digest_of(bytes: &[u8]) -> FileDigest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    FileDigest::from_bytes(out)
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, PackageError> {
    serde_json::to_vec_pretty(value).map_err(|e| PackageError::Format(e.to_string()))
}

fn encode<'a>(
    manifest: &'a [u8],
    parts: impl Iterator<Item = (&'a str, &'a [u8])>,
    signature: Option<&'a [u8]>,
) -> Result<Vec<u8>, PackageError> {
    let entries = std::iter::once((MANIFEST, manifest)).chain(parts).chain(signature.map(|s| (SIGNATURE, s)));
    archive::write(entries).map_err(|e| PackageError::Format(e.to_string()))
}
