//! Bringing a model into the store.
//!
//! Files are hashed, copied aside, made durable, and get their name by one rename. After a crash before it there is something
//! in `staging`, which the next import removes; after it the model is there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use provost_gpu_infer::ModelSource;

use super::manifest::{MANIFEST, Manifest, StoredFile, digest_of, hashed, is_plain};
use super::verify::check_files;
use super::{ModelStore, StoreError};

/// What is being copied, in `staging`.
const COMING: &str = "coming";
/// What is being replaced, in `staging`.
const DAMAGED: &str = "damaged";

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What is in the store now.
    pub manifest: Manifest,
    /// It was there before, as it should be; nothing was written.
    pub was_there: bool,
}

/// What is copied aside. It goes unless it gets its name.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next import.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl ModelStore {
    /// Brings the model at `from` (a directory or a `.gguf` file) into the store. One that is there already is left as it
    /// is, unless it is not what its digest says any more: then it is replaced. Reads all files, and writes them.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is there that was not there before.
    pub fn import(&self, from: &Path, name: &str) -> Result<Imported, StoreError> {
        self.import_telling(from, name, &mut |_| {})
    }

    /// The same; `told` hears of the bytes of each piece that is read, every file being read twice.
    ///
    /// # Errors
    /// As [`ModelStore::import`].
    pub fn import_telling(&self, from: &Path, name: &str, told: &mut dyn FnMut(u64)) -> Result<Imported, StoreError> {
        let source = ModelSource::open(name, from)?;
        let manifest = describe(&source, name, told)?;
        let place = self.place_of(manifest.digest);
        make_dir(&self.root)?;
        let _lock = self.take_lock()?;
        // Whoever has the lock is alone: what lies here was left by somebody who did not come to an end.
        self.clear_staging()?;
        if place.exists() {
            if check_files(&place, manifest.digest).is_ok() {
                return Ok(Imported { manifest, was_there: true });
            }
            self.set_aside(&place)?;
        }
        let staged = Staged(self.staging().join(COMING));
        let copied = copy(&source, &manifest, &staged.0, told);
        copied.map_err(|cause| of_write(cause, &manifest, &self.root))?;
        make_dir(&self.blobs())?;
        let named = fs::rename(&staged.0, &place).and_then(|()| self.sync_folders());
        named.map_err(|cause| StoreError::io(&place, &cause))?;
        // What it replaced goes last: a node tells the two apart by their inodes.
        let _ = fs::remove_dir_all(self.staging().join(DAMAGED));
        Ok(Imported { manifest, was_there: false })
    }

    /// What was named stays named, also in folders that were made for it.
    pub(super) fn sync_folders(&self) -> io::Result<()> {
        sync_dir(&self.blobs())?;
        sync_dir(&self.root)?;
        self.root.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
    }

    /// One import at a time; the kernel lets go when the process ends, however it ends.
    pub(super) fn take_lock(&self) -> Result<File, StoreError> {
        let path = self.lock();
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|cause| StoreError::io(&path, &cause))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy { place: self.root.display().to_string() }),
            Err(TryLockError::Error(cause)) => Err(StoreError::io(&path, &cause)),
        }
    }

    fn clear_staging(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(self.staging()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(StoreError::io(&self.staging(), &cause)),
            _ => make_dir(&self.staging()),
        }
    }

    /// Takes a damaged model out of the store. After a crash it is absent, and can be imported.
    fn set_aside(&self, place: &Path) -> Result<(), StoreError> {
        fs::rename(place, self.staging().join(DAMAGED)).map_err(|cause| StoreError::io(place, &cause))
    }
}

/// Hashes all files of a model.
fn describe(source: &ModelSource, name: &str, told: &mut dyn FnMut(u64)) -> Result<Manifest, StoreError> {
    let mut files = Vec::new();
    for (path, from) in source.files()? {
        if !is_plain(&path) {
            return Err(StoreError::Io { place: path, cause: "is no name of a file in a model".to_owned() });
        }
        let hashed = File::open(&from).and_then(|mut file| {
            hashed(&mut file, |piece| {
                told(piece.len() as u64);
                Ok(())
            })
        });
        let (bytes, sha256) = hashed.map_err(|cause| StoreError::io(&from, &cause))?;
        files.push(StoredFile { path, bytes, sha256 });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Manifest {
        digest: digest_of(&files),
        name: name.to_owned(),
        format: source.format(),
        dtype: source.dtype().to_owned(),
        files,
    })
}

/// Copies a model aside, durably.
fn copy(source: &ModelSource, manifest: &Manifest, to: &Path, told: &mut dyn FnMut(u64)) -> Result<(), Writing> {
    fs::create_dir_all(to)?;
    for (path, from) in source.files()? {
        let target = to.join(&path);
        if let Some(parent) = target.parent().filter(|parent| *parent != to) {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::options().write(true).create_new(true).open(&target)?;
        let mut reader = File::open(&from)?;
        let (bytes, sha256) = hashed(&mut reader, |piece| {
            told(piece.len() as u64);
            file.write_all(piece)
        })?;
        file.sync_all()?;
        let is_as_described = |stored: &StoredFile| stored.bytes == bytes && stored.sha256 == sha256;
        if !manifest.files.iter().any(|stored| stored.path == path && is_as_described(stored)) {
            return Err(Writing::Store(StoreError::Changed { file: from.display().to_string() }));
        }
        if let Some(parent) = target.parent().filter(|parent| *parent != to) {
            sync_dir(parent)?;
        }
    }
    let mut file = File::options().write(true).create_new(true).open(to.join(MANIFEST))?;
    file.write_all(&serde_json::to_vec_pretty(manifest).map_err(io::Error::from)?)?;
    file.sync_all()?;
    sync_dir(to)?;
    Ok(())
}

/// Why copying ended.
enum Writing {
    Io(io::Error),
    Store(StoreError),
}

impl From<io::Error> for Writing {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

impl From<provost_gpu_infer::InferError> for Writing {
    fn from(cause: provost_gpu_infer::InferError) -> Self {
        Self::Store(cause.into())
    }
}

fn of_write(cause: Writing, manifest: &Manifest, root: &Path) -> StoreError {
    match cause {
        Writing::Store(cause) => cause,
        Writing::Io(cause) if is_full(&cause) => {
            StoreError::Full { bytes: manifest.bytes(), place: root.display().to_string() }
        }
        Writing::Io(cause) => StoreError::io(root, &cause),
    }
}

pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

pub(super) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(dir).map_err(|cause| StoreError::io(dir, &cause))
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "tests.rs"]
mod tests;
