//! Models on a node's disk, each under the digest of its files.
//!
//! Purpose: bring models into `blobs/DIGEST/` ([`ModelStore::import`]) and find them there; say whether they still are what
//! their digest says.
//! Invariants: what lies in `blobs` was whole and durable before it had its name, which one rename gave it; nothing there is
//! changed afterwards; what an import that ended early has left is in `staging`, is never a model, and goes with the next one.
//! What another node sends ([`Arriving`]) lies in `arriving` until it is whole and right.
//! Left out: which of them are served (resources of kind `Model`), and who sends them (`copies`).

mod arriving;
mod error;
mod import;
mod manifest;
mod removal;
mod verify;

use std::path::{Path, PathBuf};

use provost_types::FileDigest;

pub(crate) use arriving::Arriving;
pub use error::StoreError;
pub use import::Imported;
pub use manifest::{Manifest, StoredFile};
pub(crate) use verify::Verified;

const BLOBS: &str = "blobs";
const STAGING: &str = "staging";
const ARRIVING: &str = "arriving";
const LOCK: &str = "store.lock";

/// The models under one folder.
#[derive(Clone, Debug)]
pub struct ModelStore {
    root: PathBuf,
}

impl ModelStore {
    /// The store of a node with this data directory. Nothing is made before something is imported.
    pub fn of_data_dir(data_dir: &Path) -> Self {
        Self::new(Self::root_of(data_dir))
    }

    /// Where that store is.
    pub fn root_of(data_dir: &Path) -> PathBuf {
        data_dir.join("models")
    }

    /// The store in this folder.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of everything that it keeps.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the model of this digest lies, if it is here.
    pub fn place_of(&self, digest: FileDigest) -> PathBuf {
        self.blobs().join(folder_of(digest))
    }

    /// Whether it is here.
    pub(crate) fn has(&self, digest: FileDigest) -> bool {
        self.place_of(digest).exists()
    }

    /// What it says of itself, if it is here. Nothing in it is believed by that.
    pub(crate) fn manifest_of(&self, digest: FileDigest) -> Result<Option<Manifest>, StoreError> {
        let place = self.place_of(digest);
        if place.exists() { Manifest::read(&place).map(Some) } else { Ok(None) }
    }

    /// The models that are here, in order of their digests. What cannot be read is left out.
    ///
    /// # Errors
    /// When the folder cannot be read, unless there is none.
    pub fn list(&self) -> Result<Vec<Manifest>, StoreError> {
        let entries = match std::fs::read_dir(self.blobs()) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(StoreError::io(&self.blobs(), &cause)),
        };
        let mut found: Vec<Manifest> =
            entries.flatten().filter_map(|entry| Manifest::read(&entry.path()).ok()).collect();
        found.sort_by_key(|manifest| manifest.digest);
        Ok(found)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    fn staging(&self) -> PathBuf {
        self.root.join(STAGING)
    }

    fn arriving(&self) -> PathBuf {
        self.root.join(ARRIVING)
    }

    fn lock(&self) -> PathBuf {
        self.root.join(LOCK)
    }
}

/// What the folder of a model is called: without the colon, which some tools take for something else.
fn folder_of(digest: FileDigest) -> String {
    digest.to_string().replace(':', "-")
}
