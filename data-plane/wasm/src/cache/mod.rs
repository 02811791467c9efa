//! Machine code of components, in files that only this node writes.
//!
//! To load machine code is to run it: wasmtime trusts what it is given. So a file is used only if its last bytes are
//! a keyed hash of everything before them, of the component's digest and of the compiler that made it, under a key
//! that this node alone has. Anything else (cut off, changed, renamed, of another version) is removed, and the component is
//! compiled again.
//!
//! A crash leaves a file that is whole, none, or, where the disk lost writes, one that fails the check: nothing
//! needs to be synced. Left out: files of components that are not installed any more, until [`AotCache::retain`].

mod files;
mod key;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use wasmtime::{Engine, component::Component};

pub use self::key::CacheKey;
use crate::ComponentDigest;

/// Bytes of the keyed hash at the end of a file.
const MAC_BYTES: usize = 32;
/// Largest file that is looked at: an interpreter has 35 MB.
const MAX_FILE: u64 = 512 << 20;
const EXTENSION: &str = "cwasm";

/// Why the cache cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder or the key cannot be made or read.
    #[error("PV-PLUGIN-CACHE: the folder of compiled plugins, {path}, cannot be used: {why}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl CacheError {
    fn new(path: &Path, why: impl ToString) -> Self {
        Self::Folder { path: path.to_owned(), why: why.to_string() }
    }
}

/// A folder of compiled components.
#[derive(Debug)]
pub struct AotCache {
    folder: PathBuf,
    key: CacheKey,
}

/// What one file is for: the component, and everything about the compiler that matters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) digest: ComponentDigest,
    /// Hash of the compiler's version, its settings and the features of this processor.
    pub(crate) compiler: [u8; 32],
}

impl AotCache {
    /// Uses this folder, which is made if it is not there. Refused where others may write to it.
    pub fn open(folder: impl Into<PathBuf>, key: CacheKey) -> Result<Self, CacheError> {
        let folder = folder.into();
        files::make_private(&folder).map_err(|why| CacheError::new(&folder, why))?;
        Ok(Self { folder, key })
    }

    /// The component, if this node compiled it before and nobody touched the file since.
    pub(crate) fn load(&self, engine: &Engine, entry: &Entry) -> Option<Component> {
        let path = self.path(entry);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return None,
            Err(cause) => {
                tracing::warn!(path = %path.display(), %cause, "a compiled plugin cannot be read; it is compiled again");
                return None;
            }
        };
        match self.checked(&file, entry).and_then(|()| map(engine, &file)) {
            Ok(component) => Some(component),
            Err(why) => {
                tracing::warn!(path = %path.display(), why, "a compiled plugin is not as it was written; it is compiled again");
                let _ = std::fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps machine code that this process has just made.
    pub(crate) fn store(&self, entry: &Entry, code: &[u8]) -> std::io::Result<()> {
        let mac = self.mac(entry, code);
        files::write_once(&self.folder, &self.path(entry), &[code, &mac])
    }

    /// Removes what is not for one of these components. For a start, or after plugins were removed: not beside
    /// another process that uses the folder.
    pub fn retain(&self, keep: impl Fn(&ComponentDigest) -> bool) -> std::io::Result<usize> {
        files::remove_where(&self.folder, |name| {
            let digest = name.strip_suffix(EXTENSION).and_then(|name| name.split('-').next());
            !digest.and_then(ComponentDigest::parse).is_some_and(|digest| keep(&digest))
        })
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        // A part of the hash serves to tell versions apart; the whole of it is in the check.
        let compiler = hex::encode(entry.compiler.first_chunk::<8>().unwrap_or(&[0; 8]));
        self.folder.join(format!("{}-{compiler}.{EXTENSION}", entry.digest))
    }

    fn checked(&self, file: &File, entry: &Entry) -> Result<(), String> {
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|cause| cause.to_string())?;
        let (code, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or("it is too short")?;
        // `blake3::Hash` compares in constant time.
        if blake3::Hash::from(self.mac(entry, code)) == blake3::Hash::from(*mac) {
            Ok(())
        } else {
            Err("its check does not hold".to_owned())
        }
    }

    fn mac(&self, entry: &Entry, code: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(self.key.bytes());
        // Fixed lengths before the one that is not: no two entries are the same bytes.
        hasher.update(b"provost compiled plugin 1\0").update(entry.digest.as_bytes()).update(&entry.compiler);
        hasher.update(code);
        hasher.finalize().into()
    }
}

/// Maps the very file that was checked: its name may lead to another one by now.
#[allow(unsafe_code)]
fn map(engine: &Engine, file: &File) -> Result<Component, String> {
    let path = files::path_of(file);
    // SAFETY: the bytes are what this node's own compiler made, for this very compiler, settings and processor: the
    // keyed hash over them was checked through the same open file, and only this node has the key. They stay so
    // while they are mapped: files of the cache are written under another name, made read-only, renamed and never
    // written again, in a folder that only this user may write to. (Whoever acts as this user can write to this
    // process's memory as well.) `tests/wasm/cache.rs` changes every part of a file and sees it refused.
    unsafe { Component::deserialize_file(engine, path) }.map_err(|cause| format!("{cause:#}"))
}
