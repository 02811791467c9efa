//! A segment's files, and where a block stands in them.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use provost_audit_core::{BLOCK_HEADER_LEN, BLOCK_RECORDS, BlockHeader, Hash};

use crate::walk::ReadFault;

/// The files of one segment, read by place so that several threads can share them.
pub(crate) struct SegmentFile {
    pub path: PathBuf,
    pub first: u64,
    pub records: File,
    pub hashes: Option<File>,
}

/// Where a block stands.
#[derive(Clone)]
pub(crate) struct BlockPlace {
    pub segment: Arc<SegmentFile>,
    /// Offset of its header.
    pub offset: u64,
    pub header: BlockHeader,
}

impl BlockPlace {
    /// Reads the stored body into `into`; false where the file ends within it.
    pub(crate) fn read_body(&self, into: &mut Vec<u8>) -> io::Result<bool> {
        let len = self.header.stored_len as usize;
        into.resize(len, 0);
        Ok(read_at(&self.segment.records, into, self.offset + BLOCK_HEADER_LEN as u64)? == len)
    }

    /// The leaf hashes stored beside the block; fewer than leaves when the file is short.
    pub(crate) fn read_hashes(&self) -> Vec<Hash> {
        let Some(file) = &self.segment.hashes else { return Vec::new() };
        let mut bytes = [0; BLOCK_RECORDS as usize * 32];
        let at = (self.header.first_index - self.segment.first) * 32;
        let got = read_at(file, &mut bytes, at).unwrap_or_default();
        let (hashes, _) = bytes[..got].as_chunks::<32>();
        hashes.iter().map(|h| Hash(*h)).collect()
    }

    pub(crate) fn fault(&self, what: impl ToString) -> ReadFault {
        ReadFault {
            file: self.segment.path.clone(),
            offset: self.offset,
            index: self.header.first_index,
            what: what.to_string(),
            missing: false,
        }
    }
}

/// Reads until `into` is full or the file ends; gives the number of bytes read.
pub(crate) fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read_at(&mut into[got..], at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
