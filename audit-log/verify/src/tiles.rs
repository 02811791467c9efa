//! A log in the form of C2SP tlog-tiles, for tools that are not ours.
//!
//! Source: <https://c2sp.org/tlog-tiles>. Everything is made from the log's own files: tiles and
//! bundles up to the size of the latest checkpoint, and that checkpoint as it is.
//! Invariants: a written tree of files leads to the checkpoint's root, or nothing says that it is
//! whole: the checkpoint is written last.
//! Left out: `Content-Encoding`; serving (the node does it).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use provost_audit_core::{
    BLOCK_RECORDS, Checkpoint, CheckpointError, Frontier, Hash, MAX_CHECKPOINT_BYTES, SEGMENT_LEAVES, TILE_WIDTH,
    TileBuilder, TileKind, TileName, push_entry, tile_bytes,
};

use crate::{
    layout::{CHECKPOINT_FILE, COSIGNED_FILE, KEY_FILE, LogLayout},
    leaf_hashes::{LeafHashError, LeafHashes},
    read::LogReader,
    regular,
    walk::ReadFault,
};

/// Hashes of this level and above are not served: none exist below 2^48 leaves.
const MAX_SERVED_LEVEL: u8 = 5;
const _: () = assert!(TILE_WIDTH == BLOCK_RECORDS, "a block's records are one bundle");

/// Why tiles cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TilesError {
    /// The log has no checkpoint.
    #[error("{0}: no checkpoint is signed yet; wait a second, then try again")]
    NoCheckpoint(PathBuf),
    /// Its checkpoint cannot be read.
    #[error("{path}: {source}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: CheckpointError,
    },
    /// Its files cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// Its hashes cannot be read.
    #[error(transparent)]
    Hashes(#[from] LeafHashError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The records are not those that were signed.
    #[error("the {size} records have root {actual}; {expected} was signed: run `provost audit verify`")]
    Differs {
        /// Records.
        size: u64,
        /// The checkpoint's root.
        expected: Hash,
        /// The tree's root.
        actual: Hash,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> TilesError + use<> {
    let path = path.to_owned();
    move |source| TilesError::Io { path, source }
}

/// The tiles of one log at its latest checkpoint.
pub struct LogTiles {
    layout: LogLayout,
    note: String,
    checkpoint: Checkpoint,
}

impl LogTiles {
    /// Opens the log; what is signed later is not seen.
    pub fn open(layout: LogLayout) -> Result<Self, TilesError> {
        let path = layout.dir.join(CHECKPOINT_FILE);
        let note = match regular::read(&path, MAX_CHECKPOINT_BYTES) {
            Ok(note) => String::from_utf8_lossy(&note).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(TilesError::NoCheckpoint(path)),
            Err(source) => return Err(TilesError::Io { path, source }),
        };
        let checkpoint = Checkpoint::parse_unchecked(&note);
        let checkpoint = checkpoint.map_err(|source| TilesError::Checkpoint { path, source })?;
        Ok(Self { layout, note, checkpoint })
    }

    /// The signed note.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// What it says.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The bytes of one tile or bundle; `None` when the signed tree does not have it.
    pub fn tile(&self, name: &TileName) -> Result<Option<Vec<u8>>, TilesError> {
        if !name.is_in(self.checkpoint.size) {
            return Ok(None);
        }
        let first = name.index * TILE_WIDTH;
        match name.kind {
            TileKind::Entries => self.bundle(first, name.width).map(Some),
            TileKind::Hashes(level) if level > MAX_SERVED_LEVEL => Ok(None),
            TileKind::Hashes(level) => {
                let leaves = LeafHashes::open(self.layout.clone())?;
                let below = TILE_WIDTH.pow(u32::from(level));
                let hash = |n: u64| leaves.root((first + n) * below..(first + n + 1) * below);
                let hashes = match level {
                    0 => leaves.hashes(first..first + name.width)?,
                    _ => (0..name.width).map(hash).collect::<Result<Vec<_>, _>>()?,
                };
                Ok(Some(tile_bytes(&hashes)))
            }
        }
    }

    fn bundle(&self, first: u64, width: u64) -> Result<Vec<u8>, TilesError> {
        let mut reader = LogReader::from_segment(self.layout.clone(), first - first % SEGMENT_LEAVES)
            .with_filter(Box::new(move |header| header.first_index == first));
        let (mut bytes, mut next) = (Vec::new(), first);
        while next < first + width {
            let Some(chunk) = reader.next()? else { break };
            for (index, leaf) in chunk.iter() {
                if index == next && next < first + width {
                    push_entry(&mut bytes, leaf);
                    next += 1;
                }
            }
        }
        if next == first + width {
            return Ok(bytes);
        }
        let what = "a signed record is missing".to_owned();
        Err(ReadFault { file: self.layout.dir.clone(), offset: 0, index: next, what, missing: true }.into())
    }

    /// Writes the whole static tree below `out`: the checkpoint, its cosigned form and the key, all
    /// tiles and bundles. Gives the number of records. Running it again brings `out` up to date.
    pub fn export(&self, out: &Path) -> Result<u64, TilesError> {
        let size = self.checkpoint.size;
        let mut writer =
            TileWriter { out, builder: TileBuilder::default(), tree: Frontier::default(), bundle: Vec::new() };
        let mut reader = LogReader::new(self.layout.clone());
        'read: while let Some(chunk) = reader.next()? {
            for (_, leaf) in chunk.iter() {
                if writer.tree.size() == size {
                    break 'read;
                }
                writer.push(leaf)?;
            }
        }
        let actual = writer.tree.root();
        if writer.tree.size() != size || actual != self.checkpoint.root {
            return Err(TilesError::Differs { size: writer.tree.size(), expected: self.checkpoint.root, actual });
        }
        writer.finish()?;
        for name in [KEY_FILE, COSIGNED_FILE] {
            match regular::read(&self.layout.dir.join(name), MAX_CHECKPOINT_BYTES) {
                Ok(bytes) => write(&out.join(name), &bytes)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io_at(&self.layout.dir.join(name))(e)),
            }
        }
        write(&out.join(CHECKPOINT_FILE), self.note.as_bytes())?;
        Ok(size)
    }
}

/// The pass that writes a static tree.
struct TileWriter<'a> {
    out: &'a Path,
    builder: TileBuilder,
    tree: Frontier,
    bundle: Vec<u8>,
}

impl TileWriter<'_> {
    fn push(&mut self, leaf: &[u8]) -> Result<(), TilesError> {
        let hash = provost_audit_core::leaf_hash(leaf);
        self.tree.append(hash);
        push_entry(&mut self.bundle, leaf);
        let size = self.tree.size();
        if size.is_multiple_of(TILE_WIDTH) {
            self.write_bundle(size / TILE_WIDTH - 1, TILE_WIDTH)?;
        }
        let mut full = Vec::new();
        self.builder.push(hash, |name, hashes| full.push((name, tile_bytes(hashes))));
        full.into_iter().try_for_each(|(name, bytes)| write(&self.out.join(name.path()), &bytes))
    }

    fn finish(&mut self) -> Result<(), TilesError> {
        for (name, hashes) in self.builder.partial() {
            write(&self.out.join(name.path()), &tile_bytes(hashes))?;
        }
        let size = self.tree.size();
        match size % TILE_WIDTH {
            0 => Ok(()),
            width => self.write_bundle(size / TILE_WIDTH, width),
        }
    }

    fn write_bundle(&mut self, index: u64, width: u64) -> Result<(), TilesError> {
        let name = TileName { kind: TileKind::Entries, index, width };
        write(&self.out.join(name.path()), &self.bundle)?;
        self.bundle.clear();
        Ok(())
    }
}

/// Readers see the whole file or none.
fn write(path: &Path, bytes: &[u8]) -> Result<(), TilesError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(io_at(dir))?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, bytes).map_err(io_at(path))?;
    fs::rename(&temporary, path).map_err(io_at(path))
}
