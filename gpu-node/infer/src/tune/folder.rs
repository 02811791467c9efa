//! The folder of a run: its checkpoint, and the adapter in the end.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::TuneError;

const LOCK_FILE: &str = ".tuning";

/// The folder, as long as nobody else trains in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked until it is closed, be it that the process dies.
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is not there, and takes it.
    pub(super) fn open(path: &Path) -> Result<Self, TuneError> {
        fs::create_dir_all(path).map_err(|cause| TuneError::folder(path, cause))?;
        let file = path.join(LOCK_FILE);
        let lock = File::options().create(true).truncate(false).write(true).open(&file);
        let lock = lock.map_err(|cause| TuneError::folder(&file, cause))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TuneError::InUse(path.display().to_string())),
            Err(TryLockError::Error(cause)) => return Err(TuneError::folder(&file, cause)),
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// A file's bytes; none where there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, TuneError> {
        let file = self.path.join(name);
        match fs::read(&file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(TuneError::folder(&file, cause)),
        }
    }

    /// Writes a file, as [`write_whole`].
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TuneError> {
        write_whole(&self.path, name, bytes)
    }

    pub(super) fn error(&self, name: &str, cause: impl std::fmt::Display) -> TuneError {
        TuneError::folder(&self.path.join(name), cause)
    }
}

/// Finds a link in a folder or in those in it: who carries a task out may read and write where who put it may not.
pub(super) fn link_in(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            return Ok(Some(entry.path()));
        }
        // One level is all that a task has.
        let within =
            if kind.is_dir() { fs::read_dir(entry.path())?.collect::<Result<Vec<_>, _>>()? } else { Vec::new() };
        for entry in within {
            if entry.file_type()?.is_symlink() {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

/// Whether somebody trains in a folder.
pub(super) fn is_taken(path: &Path) -> bool {
    let lock = File::options().write(true).open(path.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Writes a file of a folder: after a crash it is the one before or this one, and once this returns it is this one.
pub(super) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), TuneError> {
    let (file, aside) = (folder.join(name), folder.join(format!(".{name}.new")));
    // What lies there is of a run that was killed. Whatever it is, it is not written through.
    let _ = fs::remove_file(&aside);
    let written = File::options().write(true).create_new(true).open(&aside).and_then(|mut new| {
        new.write_all(bytes)?;
        new.sync_all()?;
        fs::rename(&aside, &file)?;
        File::open(folder)?.sync_all()
    });
    written.map_err(|cause| TuneError::folder(&file, cause))
}
