//! One process a data directory.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use anyhow::Context;

use crate::{failure::Failure, node::keys::make_private_dir};

/// Holds the directory until dropped; the kernel lets go when the process ends, however it ends.
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes the directory if needed, for this user alone, and takes it.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        make_private_dir(dir).with_context(|| format!("PV-DEV-IO: {} cannot be made", dir.display()))?;
        let path = dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("PV-DEV-IO: {} cannot be opened", path.display()))?;
        file.try_lock().map_err(|cause| match cause {
            TryLockError::WouldBlock => Failure::new(
                "PV-DEV-LOCKED",
                format!("another process runs on {}", dir.display()),
                "stop it, or choose another directory (--data-dir; of a server, data_dir)",
            ),
            TryLockError::Error(cause) => Failure::new(
                "PV-DEV-IO",
                format!("{} cannot be locked: {cause}", path.display()),
                "the data folder must lie on a file system that knows locks",
            ),
        })?;
        Ok(Self { _file: file })
    }
}
