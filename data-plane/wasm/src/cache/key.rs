//! The key by which a node knows its own files.

use std::{fmt, fs, path::Path};

use super::{CacheError, files};

const KEY_BYTES: usize = 32;

/// A secret of this node. Who has it can make the node run any machine code.
#[derive(Clone)]
pub struct CacheKey([u8; KEY_BYTES]);

impl CacheKey {
    /// From bytes that are as good as random, such as ones derived from the node's identity.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// For one process: what it compiles is compiled again after a restart.
    pub fn of_this_process() -> Self {
        Self(rand::random())
    }

    /// From a file that is made, readable for this user alone, where there is none. Keep it outside the cache's
    /// folder: a copy of both is good on another machine.
    pub fn in_file(path: &Path) -> Result<Self, CacheError> {
        let failed = |why: std::io::Error| CacheError::new(path, why);
        if !path.try_exists().map_err(failed)? {
            let folder = path.parent().unwrap_or(Path::new("."));
            match files::create_once(folder, path, &Self::of_this_process().0) {
                // Another process of this node was faster: its key is the key.
                Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => made.map_err(failed)?,
            }
        }
        let bytes = fs::read(path).map_err(failed)?;
        let bytes = bytes.try_into().map_err(|_| CacheError::new(path, "it does not hold a key of 32 bytes"))?;
        Ok(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey")
    }
}
