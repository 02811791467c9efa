//! Snapshots on disk: one current file per group, written whole, checksummed, renamed into place.
//!
//! Layout: magic, length of the header (u32, big-endian), header (openraft's snapshot metadata),
//! data, BLAKE3 of everything before it. A crash while writing leaves a `*.tmp` file that is
//! removed on the next start; a crash after the rename leaves an older file too, and the newer
//! one wins.
//!
//! A snapshot of this node may be written while one of the leader is installed. The older of the
//! two never takes the place of the newer: the log may already be purged up to that one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{codec, raft_types::SnapshotMeta};

const MAGIC: &[u8; 8] = b"PVSNAP01";
const HASH_BYTES: u64 = 32;
const SUFFIX: &str = "snapshot";
/// Most bytes of a header; a larger length is damage.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// A complete snapshot, open for reading. The file may be replaced meanwhile; this handle still
/// reads the old one.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    file: Arc<File>,
    len: u64,
    data_start: u64,
}

impl SnapshotFile {
    /// Opens a file and reads its header; [`SnapshotFile::verify`] checks the contents.
    pub(crate) fn open(path: &Path) -> io::Result<(SnapshotMeta, Self)> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut start = [0; 12];
        file.read_exact_at(&mut start, 0)?;
        let (magic, length) = start.split_at(MAGIC.len());
        let header_len = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        let data_start = start.len() as u64 + u64::from(header_len);
        if magic != MAGIC || header_len > MAX_HEADER_BYTES || data_start + HASH_BYTES > len {
            return Err(damaged(path));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact_at(&mut header, start.len() as u64)?;
        let meta = codec::decode(&header)?;
        Ok((meta, Self { path: path.to_owned(), file: Arc::new(file), len, data_start }))
    }

    /// Reads the whole file and compares its checksum.
    pub(crate) fn verify(&self) -> io::Result<()> {
        let mut hasher = blake3::Hasher::new();
        let mut body = self.range(0, self.len - HASH_BYTES);
        io::copy(&mut body, &mut HashWriter(&mut hasher))?;
        let mut stored = [0; HASH_BYTES as usize];
        self.file.read_exact_at(&mut stored, self.len - HASH_BYTES)?;
        if hasher.finalize().as_bytes() == &stored { Ok(()) } else { Err(damaged(&self.path)) }
    }

    /// The machine's part.
    pub(crate) fn data(&self) -> impl Read {
        self.range(self.data_start, self.len - HASH_BYTES)
    }

    /// Bytes of the whole file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Up to `max` bytes at `offset`, for sending.
    pub(crate) fn chunk(&self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(max).min(max);
        let mut chunk = vec![0; length];
        self.file.read_exact_at(&mut chunk, offset)?;
        Ok(chunk)
    }

    fn range(&self, from: u64, to: u64) -> RangeReader {
        RangeReader { file: self.file.clone(), at: from, to }
    }
}

struct RangeReader {
    file: Arc<File>,
    at: u64,
    to: u64,
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.to - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct HashWriter<'a>(&'a mut blake3::Hasher);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to a file and hashes what passes.
struct Tee<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The folder of a group's snapshots; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotDir {
    path: PathBuf,
    /// Held while the folder is listed or changed.
    listing: Arc<Mutex<()>>,
}

impl SnapshotDir {
    /// Opens the folder and removes what interrupted writes left.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        for entry in fs::read_dir(&path)? {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(file)?;
            }
        }
        Ok(Self { path, listing: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for a file being written or received.
    pub(crate) fn temporary(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.tmp"))
    }

    /// The newest snapshot that is whole.
    pub(crate) fn current(&self) -> io::Result<Option<(SnapshotMeta, SnapshotFile)>> {
        let _listing = self.lock();
        self.newest()
    }

    fn newest(&self) -> io::Result<Option<(SnapshotMeta, SnapshotFile)>> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&self.path)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
        paths.retain(|p| p.extension().is_some_and(|e| e == SUFFIX));
        paths.sort();
        paths.last().map(|path| SnapshotFile::open(path)).transpose()
    }

    /// Writes a snapshot and makes it current.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        write_data: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let temporary = self.temporary("building");
        let header = codec::encode(meta)?;
        let header_len = u32::try_from(header.len()).map_err(io::Error::other)?;
        let mut tee = Tee { out: BufWriter::new(File::create(&temporary)?), hasher: blake3::Hasher::new() };
        tee.write_all(MAGIC)?;
        tee.write_all(&header_len.to_be_bytes())?;
        tee.write_all(&header)?;
        write_data(&mut tee)?;
        let hash = tee.hasher.finalize();
        tee.out.write_all(hash.as_bytes())?;
        tee.out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        Ok(self.adopt(&temporary)?.1)
    }

    /// Makes a complete temporary file (or the current one, which stays) the current snapshot. One
    /// that is older than the current one is removed; its handle still reads it.
    pub(crate) fn adopt(&self, path: &Path) -> io::Result<(SnapshotMeta, SnapshotFile)> {
        let (meta, file) = SnapshotFile::open(path)?;
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        // Twenty digits: the order of names is the order of indexes.
        let target = self.path.join(format!("{index:020}.{SUFFIX}"));
        let _listing = self.lock();
        if self.newest()?.is_some_and(|(newest, _)| newest.last_log_id > meta.last_log_id) {
            fs::remove_file(path)?;
            return Ok((meta, file));
        }
        if path != target {
            OpenOptions::new().read(true).open(path)?.sync_all()?;
            fs::rename(path, &target)?;
        }
        File::open(&self.path)?.sync_all()?;
        for entry in fs::read_dir(&self.path)? {
            let other = entry?.path();
            if other != target && other.extension().is_some_and(|e| e == SUFFIX) {
                fs::remove_file(other)?;
            }
        }
        SnapshotFile::open(&target)
    }
}

fn damaged(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the snapshot {} is damaged; restore this node from its peers", path.display()),
    )
}
