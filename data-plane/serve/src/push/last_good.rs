//! The last good state on disk.
//!
//! `last-good` holds a magic, a version, the state as JSON, and BLAKE3 over all of that; secrets in
//! it are sealed, and only the owner may read it. It is written beside, synced, and renamed: a
//! crash leaves the old file or the new one, and perhaps `last-good.tmp`, which the next write
//! overwrites. A file that is damaged, of a later release or of another cluster is put aside as
//! `last-good.aside` with a warning: the node then starts as if it had none.
//! `last-good.confirmed` holds the moment at which the state was last confirmed, in nanoseconds since the
//! Unix epoch: apart from the state, because it changes by the minute and the state may not change for
//! days. It is replaced once a minute, or ten times within the maximum age of grants where that is
//! short, and synced each time: by power loss too a node forgets no more than the last of these notes.
//! Each second would be an fsync a second for a figure whose limit is counted in hours. If it is lost
//! all the same, the state counts as older than it is, which fails closed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use provost_types::{Resource, Revision, Snapshot};
use serde::{Deserialize, Serialize};

use super::mirror::Pushed;

const FILE: &str = "last-good";
const ASIDE: &str = "last-good.aside";
const STAMP: &str = "last-good.confirmed";
const MAGIC: &[u8; 8] = b"PVSTGOOD";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 12;
const HASH_BYTES: usize = 32;
/// A larger file is not ours.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// The folder of the last good state cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("PV-PUSH-STORE: the last good state in {} cannot be read or written: {cause}", .path.display())]
pub struct StoreError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub cause: io::Error,
}

/// Why a file is put aside.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is no last good state")]
    NoState,
    #[error("it has version {0}, which a later release wrote")]
    Version(u32),
    #[error("it belongs to cluster `{0}`")]
    Cluster(String),
    #[error("it cannot be read: {0}")]
    Body(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct BodyOut<'a> {
    cluster: &'a str,
    revision: Revision,
    hash: [u8; 32],
    confirmed_ns: Option<u64>,
    key_ring: &'a BTreeMap<u64, String>,
    resources: Vec<&'a Resource>,
}

#[derive(Deserialize)]
struct BodyIn {
    cluster: String,
    revision: Revision,
    hash: [u8; 32],
    confirmed_ns: Option<u64>,
    key_ring: BTreeMap<u64, String>,
    resources: Vec<Resource>,
}

/// What was on disk.
pub(crate) struct Loaded {
    pub(crate) pushed: Pushed,
    /// When it was last confirmed.
    pub(crate) confirmed: Option<SystemTime>,
}

pub(crate) struct LastGood {
    dir: PathBuf,
    cluster: String,
}

impl LastGood {
    /// Opens the folder, making it if need be, and reads what is there.
    pub(crate) fn open(dir: &Path, cluster: &str) -> Result<(Self, Option<Loaded>), StoreError> {
        let store = Self { dir: dir.to_owned(), cluster: cluster.to_owned() };
        fs::create_dir_all(dir).map_err(|e| store.error(e))?;
        let loaded = store.load().map_err(|e| store.error(e))?;
        Ok((store, loaded))
    }

    fn load(&self) -> io::Result<Option<Loaded>> {
        let path = self.dir.join(FILE);
        let bytes = match fs::metadata(&path) {
            Ok(found) if found.len() > MAX_FILE_BYTES => Vec::new(),
            Ok(_) => fs::read(&path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match self.decode(&bytes) {
            Ok(mut loaded) => {
                loaded.confirmed = loaded.confirmed.max(self.read_stamp());
                Ok(Some(loaded))
            }
            Err(why) => {
                let aside = self.dir.join(ASIDE);
                let (from, to) = (path.display(), aside.display());
                tracing::warn!(code = "PV-PUSH-DAMAGED", %from, %to, "the last good state is put aside: {why}");
                fs::rename(&path, &aside)?;
                Ok(None)
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Loaded, Unusable> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(Unusable::NoState)?;
        let (body, hash) = rest.split_last_chunk::<HASH_BYTES>().ok_or(Unusable::NoState)?;
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Unusable::NoState);
        }
        let mut hasher = blake3::Hasher::new();
        if hasher.update(header).update(body).finalize() != *hash {
            return Err(Unusable::Checksum);
        }
        let version = version.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte));
        if version != VERSION {
            return Err(Unusable::Version(version));
        }
        let body: BodyIn = serde_json::from_slice(body)?;
        if body.cluster != self.cluster {
            return Err(Unusable::Cluster(body.cluster));
        }
        let resources = body.resources.into_iter().map(|r| (r.key(), Arc::new(r))).collect();
        let snapshot = Arc::new(Snapshot { revision: body.revision, resources });
        let pushed = Pushed { snapshot, key_ring: Arc::new(body.key_ring), hash: body.hash };
        Ok(Loaded { pushed, confirmed: body.confirmed_ns.map(from_ns) })
    }

    /// Replaces the state, durably.
    pub(crate) fn save(&self, pushed: &Pushed, confirmed: Option<SystemTime>) -> Result<(), StoreError> {
        let body = BodyOut {
            cluster: &self.cluster,
            revision: pushed.snapshot.revision,
            hash: pushed.hash,
            confirmed_ns: confirmed.map(to_ns),
            key_ring: &pushed.key_ring,
            resources: pushed.snapshot.resources.values().map(|r| &**r).collect(),
        };
        let write = |file: File| -> io::Result<()> {
            let mut out = Summed { out: BufWriter::new(file), hasher: blake3::Hasher::new() };
            out.write_all(MAGIC)?;
            out.write_all(&VERSION.to_le_bytes())?;
            serde_json::to_writer(&mut out, &body).map_err(io::Error::other)?;
            let hash = out.hasher.finalize();
            out.out.write_all(hash.as_bytes())?;
            out.out.into_inner().map_err(|e| e.into_error())?.sync_all()
        };
        self.replace(FILE, write).and_then(|()| File::open(&self.dir)?.sync_all()).map_err(|e| self.error(e))
    }

    /// Notes when the state was last confirmed.
    pub(crate) fn stamp(&self, confirmed: SystemTime) -> Result<(), StoreError> {
        let text = to_ns(confirmed).to_string();
        let write = |mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        self.replace(STAMP, write).map_err(|e| self.error(e))
    }

    fn read_stamp(&self) -> Option<SystemTime> {
        fs::read_to_string(self.dir.join(STAMP)).ok()?.parse().ok().map(from_ns)
    }

    fn replace(&self, name: &str, write: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
        let temporary = self.dir.join(format!("{name}.tmp"));
        write(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?)?;
        fs::rename(&temporary, self.dir.join(name))
    }

    fn error(&self, cause: io::Error) -> StoreError {
        StoreError { path: self.dir.clone(), cause }
    }
}

/// Writes and hashes.
struct Summed {
    out: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn to_ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

fn from_ns(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}
