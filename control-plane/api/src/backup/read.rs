//! Reading a backup and checking every byte of it.

use std::io::{self, Read};

use super::format::{
    BackupError, BackupHeader, FRAME_BYTES, HASH_BYTES, MAGIC, MAX_HEADER_BYTES, MAX_STORED_BYTES, VERSION,
};

/// What a verified backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// What it says of itself.
    pub header: BackupHeader,
    /// Resources in it.
    pub resources: u64,
    /// Past transactions in it.
    pub history: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 over the file without its last 32 bytes, which are this hash; hexadecimal.
    pub hash: String,
}

/// Reads a backup to its end and checks every hash, and that the state in it can be read.
pub fn verify_backup(source: impl Read) -> Result<BackupSummary, BackupError> {
    super::restore::read(source, &mut |_, _| Ok(())).map(|(summary, _)| summary)
}

/// Gives the payload and checks what it is made of. Errors of [`Read`] carry a [`BackupError`];
/// [`BackupReader::finish`] must follow.
pub(super) struct BackupReader<R> {
    source: R,
    all: blake3::Hasher,
    /// Bytes read.
    at: u64,
    /// Where the part being read begins: damage is said to be in it.
    part: u64,
    frame: Vec<u8>,
    /// Bytes of the frame that were given.
    given: usize,
    payload_bytes: u64,
    /// The hash, once the end was read.
    end: Option<blake3::Hash>,
}

impl<R: Read> BackupReader<R> {
    pub(super) fn open(source: R) -> Result<(BackupHeader, Self), BackupError> {
        let mut reader = Self {
            source,
            all: blake3::Hasher::new(),
            at: 0,
            part: 0,
            frame: Vec::new(),
            given: 0,
            payload_bytes: 0,
            end: None,
        };
        let header = reader.header()?;
        Ok((header, reader))
    }

    fn header(&mut self) -> Result<BackupHeader, BackupError> {
        let mut magic = [0; 8];
        if self.take(&mut magic).is_err() || &magic != MAGIC {
            return Err(BackupError::Format("it does not begin as one".to_owned()));
        }
        let version = self.number()?;
        if version != VERSION {
            return Err(BackupError::Format(format!("it has version {version}, this release reads {VERSION}")));
        }
        let length = self.number()?;
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > MAX_HEADER_BYTES {
            return Err(self.damaged("the header is too long"));
        }
        let mut json = vec![0; size];
        self.take(&mut json)?;
        let start = [&MAGIC[..], &version.to_be_bytes(), &length.to_be_bytes(), &json].concat();
        self.check_hash(&blake3::hash(&start), "the header is not what was written")?;
        serde_json::from_slice(&json).map_err(|e| BackupError::Format(format!("its header cannot be read: {e}")))
    }

    /// Fills `buffer`, counting and hashing.
    fn take(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.fill(buffer)?;
        self.all.update(buffer);
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => return Err(self.damaged("the file ends here; it was cut off")),
                Ok(read) => {
                    filled += read;
                    self.at += read as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u32, BackupError> {
        let mut bytes = [0; 4];
        self.take(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn damaged(&self, what: impl Into<String>) -> BackupError {
        BackupError::Damaged { from: self.part, to: self.at, what: what.into() }
    }

    fn check_hash(&mut self, expected: &blake3::Hash, what: &str) -> Result<(), BackupError> {
        let mut stored = [0; HASH_BYTES];
        self.take(&mut stored)?;
        if expected == &stored { Ok(()) } else { Err(self.damaged(what)) }
    }

    /// Reads the next frame, or the end.
    fn next_frame(&mut self) -> Result<(), BackupError> {
        self.part = self.at;
        let stored_length = self.number()?;
        if stored_length == 0 {
            return self.read_end();
        }
        let plain_length = self.number()?;
        let [stored_size, plain_size] = [stored_length, plain_length].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        if stored_size > MAX_STORED_BYTES || plain_size > FRAME_BYTES || plain_size == 0 {
            return Err(self.damaged("a part has an impossible length"));
        }
        let mut stored = vec![0; stored_size];
        self.take(&mut stored)?;
        let lengths = [stored_length.to_be_bytes(), plain_length.to_be_bytes()].concat();
        let hash = blake3::Hasher::new().update(&lengths).update(&stored).finalize();
        self.check_hash(&hash, "this part is not what was written")?;
        let plain = zstd::bulk::decompress(&stored, plain_size);
        let plain = plain.map_err(|e| self.damaged(format!("this part does not unpack: {e}")))?;
        if plain.len() != plain_size {
            return Err(self.damaged("this part unpacks to another length"));
        }
        self.payload_bytes += plain.len() as u64;
        (self.frame, self.given) = (plain, 0);
        Ok(())
    }

    fn read_end(&mut self) -> Result<(), BackupError> {
        let mut count = [0; 8];
        self.take(&mut count)?;
        let expected = self.all.finalize();
        let mut stored = [0; HASH_BYTES];
        self.fill(&mut stored)?;
        if expected != stored || u64::from_be_bytes(count) != self.payload_bytes {
            return Err(self.damaged("the parts are not all that was written, or not in that order"));
        }
        let mut after = [0];
        if self.source.read(&mut after)? != 0 {
            return Err(BackupError::Damaged {
                from: self.at,
                to: self.at + 1,
                what: "something follows the end".into(),
            });
        }
        self.end = Some(expected);
        (self.frame, self.given) = (Vec::new(), 0);
        Ok(())
    }

    /// Reads what is left. Gives bytes of the file and its hash.
    pub(super) fn finish(mut self) -> Result<(u64, blake3::Hash), BackupError> {
        loop {
            if let Some(hash) = self.end {
                return Ok((self.at, hash));
            }
            self.next_frame()?;
        }
    }
}

impl<R: Read> Read for BackupReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.frame.len() && self.end.is_none() {
            self.next_frame().map_err(|e| match e {
                BackupError::Io(e) => e,
                other => io::Error::other(other),
            })?;
        }
        let left = &self.frame[self.given..];
        let count = buffer.len().min(left.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}
