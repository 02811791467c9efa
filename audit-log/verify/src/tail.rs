//! Reads the tail of a log: the newest records, not compressed, each behind its leaf hash.
//!
//! Invariants: at most one run of records is in memory; a part that the file's end cuts is not
//! there yet.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use provost_audit_core::{BLOCK_RECORDS, BlockError, Hash, MAX_LEAF, TAIL_HEADER_LEN, TAIL_PREFIX_LEN, TailHeader};

use crate::{regular, walk::ReadFault};

/// Read-ahead, bytes.
const READ_AHEAD: usize = 256 * 1024;

/// Up to 256 records of the tail.
#[derive(Debug, Default)]
pub(crate) struct TailRun {
    pub path: PathBuf,
    pub first_index: u64,
    /// The tail's header, with the first run.
    pub header: Option<TailHeader>,
    pub raw: Vec<u8>,
    /// Each leaf within `raw`.
    pub leaves: Vec<Range<usize>>,
    pub hashes: Vec<Hash>,
    /// Where each record stands in the file.
    pub offsets: Vec<u64>,
}

/// How opening a tail ended.
pub(crate) enum Opened {
    /// It was removed meanwhile.
    Gone,
    /// It ends, at this offset, before the record that was asked for.
    Short(u64),
    /// The record that was asked for would stand next.
    At(OpenTail),
}

/// A tail, read up to some record.
pub(crate) struct OpenTail {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
    header: Option<TailHeader>,
    /// A fault behind records that are given out first.
    fault: Option<ReadFault>,
}

impl OpenTail {
    /// Opens the tail that begins with leaf `first` and passes over what precedes leaf `next`.
    pub(crate) fn open(path: &Path, first: u64, next: u64) -> Result<Opened, ReadFault> {
        let fault = |offset: u64, what: String, missing| ReadFault {
            file: path.to_owned(),
            offset,
            index: next,
            what,
            missing,
        };
        let file = match regular::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Opened::Gone),
            Err(e) => return Err(fault(0, e.to_string(), true)),
        };
        let mut file = BufReader::with_capacity(READ_AHEAD, file);
        let mut bytes = [0; TAIL_HEADER_LEN];
        if read_full(&mut file, &mut bytes).map_err(|e| fault(0, e.to_string(), false))? < bytes.len() {
            return Ok(Opened::Short(0));
        }
        let header = TailHeader::decode(&bytes).map_err(|e| fault(0, e.to_string(), false))?;
        if header.first_index != first {
            return Err(fault(0, "the tail's header names another first index".to_owned(), false));
        }
        let mut at = TAIL_HEADER_LEN as u64;
        for _ in first..next {
            match frame(&mut file, None) {
                Ok(Some((len, _))) => at += (TAIL_PREFIX_LEN + len) as u64,
                Ok(None) => return Ok(Opened::Short(at)),
                Err(e) => return Err(fault(at, e.to_string(), false)),
            }
        }
        Ok(Opened::At(Self { path: path.to_owned(), file, at, header: Some(header), fault: None }))
    }

    /// Offset of the next record.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether a call of [`OpenTail::read_run`] may give more.
    pub(crate) fn goes_on(&self, run: &TailRun) -> bool {
        // A run that is not full is the end; what was appended meanwhile is left.
        self.fault.is_some() || run.leaves.len() as u64 == BLOCK_RECORDS
    }

    /// The next records; the first of them has this index.
    pub(crate) fn read_run(&mut self, first_index: u64) -> Result<TailRun, ReadFault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let path = self.path.clone();
        let mut run = TailRun { path, first_index, header: self.header.take(), ..TailRun::default() };
        while (run.leaves.len() as u64) < BLOCK_RECORDS {
            let start = run.raw.len();
            match frame(&mut self.file, Some(&mut run.raw)) {
                Ok(Some((len, hash))) => {
                    run.leaves.push(start..start + len);
                    run.hashes.push(hash);
                    run.offsets.push(self.at);
                    self.at += (TAIL_PREFIX_LEN + len) as u64;
                }
                Ok(None) => break,
                Err(e) => {
                    let index = first_index + run.leaves.len() as u64;
                    let (file, what) = (self.path.clone(), e.to_string());
                    let fault = ReadFault { file, offset: self.at, index, what, missing: false };
                    if run.leaves.is_empty() {
                        return Err(fault);
                    }
                    self.fault = Some(fault);
                    break;
                }
            }
        }
        Ok(run)
    }
}

/// One record: its length and stored hash; its bytes are appended to `into`. `None` where the
/// file ends within it: a write that was not finished.
fn frame(file: &mut BufReader<File>, into: Option<&mut Vec<u8>>) -> io::Result<Option<(usize, Hash)>> {
    let mut prefix = [0; TAIL_PREFIX_LEN];
    if read_full(file, &mut prefix)? < prefix.len() {
        return Ok(None);
    }
    let ([a, b, c, d, ..], hash) = (prefix, prefix[4..].first_chunk::<32>());
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    let hash = hash.map(|h| Hash(*h)).unwrap_or_default();
    if len > MAX_LEAF {
        return Err(io::Error::other(BlockError::Bounds("record's length").to_string()));
    }
    match into {
        Some(raw) => {
            let start = raw.len();
            raw.resize(start + len, 0);
            if read_full(file, &mut raw[start..])? < len {
                raw.truncate(start);
                return Ok(None);
            }
        }
        None => {
            if io::copy(&mut file.by_ref().take(len as u64), &mut io::sink())? < len as u64 {
                return Ok(None);
            }
        }
    }
    Ok(Some((len, hash)))
}

/// Reads until `into` is full or the file ends; gives the number of bytes read.
fn read_full(file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
