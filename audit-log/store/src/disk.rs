//! The store's file operations, each through one place.
//!
//! Purpose: so that a test can stand in the way of any of them (fail it, delay it, note it down to
//! know what a power cut would leave). A node has nobody standing there: the operation is done and
//! that is all. Invariant: what is written, cut, made durable, renamed or removed below an audit
//! directory while a machine runs on it goes through here. Left out: reading.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One operation, about to be done.
#[derive(Debug)]
pub enum DiskOperation<'a> {
    /// A folder, with those above it.
    MakeDir(&'a Path),
    /// A file, empty; one that is there is emptied.
    Create(&'a Path),
    /// Bytes at an offset.
    Write(&'a Path, u64, &'a [u8]),
    /// The file's length.
    Cut(&'a Path, u64),
    /// The file's bytes made durable.
    Sync(&'a Path),
    /// The folder's entries made durable.
    SyncDir(&'a Path),
    /// From, to.
    Rename(&'a Path, &'a Path),
    /// A file.
    Remove(&'a Path),
}

/// Stands before each operation; an error takes its place.
pub trait DiskWatch: Send + Sync {
    /// Called by the thread that is about to do `operation`.
    fn before(&self, operation: &DiskOperation<'_>) -> io::Result<()>;
}

/// The way to the disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Option<Arc<dyn DiskWatch>>);

/// An open file that knows its name.
pub(crate) struct StoreFile {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl Disk {
    pub(crate) fn watched(watch: Arc<dyn DiskWatch>) -> Self {
        Self(Some(watch))
    }

    fn before(&self, operation: DiskOperation<'_>) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |watch| watch.before(&operation))
    }

    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOperation::MakeDir(path))?;
        fs::create_dir_all(path)
    }

    pub(crate) fn create(&self, path: &Path) -> io::Result<Arc<StoreFile>> {
        self.before(DiskOperation::Create(path))?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(self.wrap(file, path))
    }

    /// For reading and writing; as it is.
    pub(crate) fn open(&self, path: &Path) -> io::Result<Arc<StoreFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.wrap(file, path))
    }

    fn wrap(&self, file: File, path: &Path) -> Arc<StoreFile> {
        Arc::new(StoreFile { file, path: path.to_owned(), disk: self.clone() })
    }

    /// Replaces a file as a whole: after a crash it holds the old or the new bytes.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let file = self.create(&temporary)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.before(DiskOperation::Rename(&temporary, path))?;
        fs::rename(&temporary, path)
    }

    /// Makes a folder's entries durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.before(DiskOperation::SyncDir(dir))?;
        File::open(dir)?.sync_all()
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOperation::Remove(path))?;
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

impl StoreFile {
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.before(DiskOperation::Write(&self.path, offset, bytes))?;
        self.file.write_all_at(bytes, offset)
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.disk.before(DiskOperation::Sync(&self.path))?;
        self.file.sync_data()
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.before(DiskOperation::Cut(&self.path, len))?;
        self.file.set_len(len)
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(crate) fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}
