//! The form of a backup file, and writing it.
//!
//! ```text
//! "PVBACKUP"  version (u32)  length of header (u32)  header (JSON)  BLAKE3 of all so far
//! frames:     stored length (u32, not 0)  plain length (u32)  zstd frame  BLAKE3 of lengths and frame
//! end:        0 (u32)  bytes of payload (u64)  BLAKE3 of everything before it
//! ```
//! Numbers are big-endian. Each part has a hash of its own, so that damage has a place; the last
//! one binds them together, so that parts cannot be left out, repeated or mixed. The payload is the
//! state as snapshots hold it: a JSON document, and one for each part of a plugin package.

use std::io::{self, Write};

use provost_control_raft::GroupError;
use provost_types::Revision;
use serde::{Deserialize, Serialize};

use crate::SecretError;

pub(super) const MAGIC: &[u8; 8] = b"PVBACKUP";
/// The version that this build writes, and the only one so far.
pub(super) const VERSION: u32 = 1;
pub(super) const HASH_BYTES: usize = 32;
/// Most bytes of a header; more is damage.
pub(super) const MAX_HEADER_BYTES: usize = 64 << 10;
/// Bytes of payload in one frame.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// Most bytes that a frame takes: zstd adds less than this to what it cannot shorten.
pub(super) const MAX_STORED_BYTES: usize = FRAME_BYTES + (64 << 10);
/// Quick, and JSON shrinks to a tenth.
const ZSTD_LEVEL: i32 = 3;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// The cluster that it was taken from.
    pub cluster: String,
    /// The state's revision.
    pub revision: Revision,
    /// The log index up to which the state was applied: the restored log goes on after it.
    pub index: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The node that wrote it.
    pub node: String,
    /// The product's version.
    pub version: String,
}

/// Why a backup cannot be taken, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Not a backup, or of a later release.
    #[error("this is not a backup that this release reads: {0}")]
    Format(String),
    /// Something in it is not what was written.
    #[error("the backup is damaged between byte {from} and byte {to}: {what}; nothing was restored")]
    Damaged {
        /// The first byte of the damaged part.
        from: u64,
        /// The byte after its last.
        to: u64,
        /// What is wrong there.
        what: String,
    },
    /// The folder cannot take a restored state.
    #[error("{0}; nothing was restored")]
    Target(String),
    /// The file or the folder cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The key file is not that of the cluster that the backup was taken from.
    #[error("{0}; nothing was restored")]
    Key(SecretError),
    /// The log of the new group cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
}

impl BackupError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            BackupError::Format(_) => "PV-BACKUP-FORMAT",
            BackupError::Damaged { .. } => "PV-BACKUP-DAMAGED",
            BackupError::Target(_) => "PV-BACKUP-TARGET",
            BackupError::Io(_) => "PV-BACKUP-IO",
            BackupError::Key(e) => e.code(),
            BackupError::Group(e) => e.code(),
        }
    }
}

/// Writes a backup: the header at once, a frame whenever one is full, the end by
/// [`BackupWriter::finish`]. Without the end a backup does not verify.
pub(super) struct BackupWriter<W> {
    out: W,
    all: blake3::Hasher,
    frame: Vec<u8>,
    payload_bytes: u64,
}

impl<W: Write> BackupWriter<W> {
    pub(super) fn new(out: W, header: &BackupHeader) -> io::Result<Self> {
        let json = serde_json::to_vec(header).map_err(io::Error::other)?;
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut start = [&MAGIC[..], &VERSION.to_be_bytes(), &length.to_be_bytes(), &json].concat();
        let hash = blake3::hash(&start);
        start.extend_from_slice(hash.as_bytes());
        let frame = Vec::with_capacity(FRAME_BYTES);
        let mut writer = Self { out, all: blake3::Hasher::new(), frame, payload_bytes: 0 };
        writer.put(&start)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.all.update(bytes);
        self.out.write_all(bytes)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let stored = zstd::bulk::compress(&self.frame, ZSTD_LEVEL)?;
        let lengths = [stored.len(), self.frame.len()].map(u32::try_from);
        let [Ok(stored_length), Ok(plain_length)] = lengths else {
            return Err(io::Error::other("a frame is too large"));
        };
        let lengths = [stored_length.to_be_bytes(), plain_length.to_be_bytes()].concat();
        let hash = blake3::Hasher::new().update(&lengths).update(&stored).finalize();
        self.payload_bytes += self.frame.len() as u64;
        self.frame.clear();
        self.put(&[&lengths[..], &stored, hash.as_bytes()].concat())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_frame()?;
        self.put(&[&0_u32.to_be_bytes()[..], &self.payload_bytes.to_be_bytes()].concat())?;
        let hash = self.all.finalize();
        self.out.write_all(hash.as_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        if self.frame.len() == FRAME_BYTES {
            self.end_frame()?;
        }
        Ok(taken)
    }

    /// Frames end when they are full: flushing early would make short ones.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
