//! Where a component's bytes are until they are needed.

use std::{io::Read, path::PathBuf};

use bytes::Bytes;

use crate::{ComponentDigest, PluginError, limits::MAX_COMPONENT_BYTES};

/// A component that may have to be compiled. Read only when this node has no machine code of it.
#[derive(Clone, Debug)]
pub enum ComponentSource {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(PathBuf),
}

impl ComponentSource {
    /// The bytes, if they are those of `digest`.
    pub(crate) fn read(&self, digest: &ComponentDigest) -> Result<Bytes, PluginError> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::File(path) => {
                let file = std::fs::File::open(path).map_err(|cause| unreadable(&cause))?;
                let mut bytes = Vec::new();
                // One more than may be, so that a file which grows is noticed and not cut off.
                let most = MAX_COMPONENT_BYTES as u64 + 1;
                file.take(most).read_to_end(&mut bytes).map_err(|cause| unreadable(&cause))?;
                Bytes::from(bytes)
            }
        };
        if bytes.len() > MAX_COMPONENT_BYTES {
            return Err(PluginError::Component(format!("it is larger than {MAX_COMPONENT_BYTES} bytes")));
        }
        if ComponentDigest::of(&bytes) != *digest {
            return Err(PluginError::Component(format!("its bytes are not those of {digest:?}")));
        }
        Ok(bytes)
    }
}

fn unreadable(cause: &std::io::Error) -> PluginError {
    PluginError::Unavailable(format!("the component cannot be read: {cause}"))
}
