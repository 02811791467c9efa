//! Reads single blocks of one segment, wherever they are.
//!
//! Invariants: at most one block is in memory; a block is taken only where its own header says
//! that it belongs there. Whether hashes hold is the caller's business.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use provost_audit_core::{
    BLOCK_HEADER_LEN, BLOCK_RECORDS, BlockHeader, BlockPlace, Hash, IndexBuilder, Leaves, Record, SEGMENT_BLOCKS,
    SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SegmentFooter, block_first, decode_body,
};

use crate::{ReadFault, layout::LogLayout, regular};

/// A segment, open for reading.
pub struct SegmentFile {
    path: PathBuf,
    file: File,
    first: u64,
    stored: Vec<u8>,
    raw: Vec<u8>,
    leaves: Vec<Range<usize>>,
}

impl SegmentFile {
    /// The segment whose first leaf is `first`; `None` when there is no such file.
    pub fn open(layout: &LogLayout, first: u64) -> Result<Option<Self>, ReadFault> {
        let path = layout.segment(first);
        match regular::open(&path) {
            Ok(file) => Ok(Some(Self { path, file, first, stored: Vec::new(), raw: Vec::new(), leaves: Vec::new() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(ReadFault { file: path, offset: 0, index: first, what: e.to_string(), missing: true }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its footer; `None` while the segment is not full.
    pub fn footer(&self) -> Result<Option<SegmentFooter>, ReadFault> {
        let fault = |e: &dyn ToString| self.fault(0, 0, e, false);
        let len = self.file.metadata().map_err(|e| fault(&e))?.len();
        let mut bytes = [0; SEGMENT_FOOTER_LEN];
        let Some(at) = len.checked_sub(bytes.len() as u64) else { return Ok(None) };
        self.file.read_exact_at(&mut bytes, at).map_err(|e| fault(&e))?;
        Ok(SegmentFooter::decode(&bytes).ok().filter(|footer| footer.first_index == self.first))
    }

    /// The header of block `n` at `offset`; `None` where the file ends within it.
    pub fn header(&self, n: u8, offset: u64) -> Result<Option<BlockHeader>, ReadFault> {
        let mut bytes = [0; BLOCK_HEADER_LEN];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(self.fault(n, offset, &e, false)),
        }
        let header = BlockHeader::decode(&bytes).map_err(|e| self.fault(n, offset, &e, false))?;
        if header.first_index != block_first(self.first, n) {
            let text = format!("block {} stands where {} belongs", header.first_index, block_first(self.first, n));
            return Err(self.fault(n, offset, &text, false));
        }
        Ok(Some(header))
    }

    /// The records of block `n` with their indices.
    pub fn block(
        &mut self,
        n: u8,
        offset: u64,
        header: &BlockHeader,
    ) -> Result<impl Iterator<Item = (u64, &[u8])>, ReadFault> {
        self.stored.resize(header.stored_len as usize, 0);
        let read = self.file.read_exact_at(&mut self.stored, offset + BLOCK_HEADER_LEN as u64);
        read.map_err(|e| self.fault(n, offset, &e, e.kind() == io::ErrorKind::UnexpectedEof))?;
        let mut raw = std::mem::take(&mut self.raw);
        let decoded = decode_body(header, &self.stored, &mut raw);
        self.raw = raw;
        decoded.map_err(|e| self.fault(n, offset, &e, false))?;
        self.leaves.clear();
        for leaf in Leaves::new(&self.raw) {
            self.leaves.push(leaf.map_err(|e| self.fault(n, offset, &e, false))?);
        }
        if self.leaves.len() as u64 != BLOCK_RECORDS {
            let text = format!("the block holds {} records", self.leaves.len());
            return Err(self.fault(n, offset, &text, false));
        }
        let leaf = |range: &Range<usize>| self.raw.get(range.clone()).unwrap_or_default();
        Ok((block_first(self.first, n)..).zip(self.leaves.iter().map(leaf)))
    }

    /// The segment's index, made from its records, and the root that it is bound to; `None` while
    /// the segment is not full.
    pub fn build_index(&mut self) -> Result<Option<(Vec<u8>, Hash)>, ReadFault> {
        let Some(footer) = self.footer()? else { return Ok(None) };
        let mut builder = IndexBuilder::new(self.first);
        let mut offset = SEGMENT_HEADER_LEN as u64;
        for n in (0..SEGMENT_BLOCKS).filter_map(|n| u8::try_from(n).ok()) {
            let Some(header) = self.header(n, offset)? else {
                return Err(self.fault(n, offset, &"the segment ends before its last block", true));
            };
            let (min_time_ns, max_time_ns) = (header.min_time_ns, header.max_time_ns);
            builder.block(BlockPlace { offset, min_time_ns, max_time_ns });
            let path = self.path.clone();
            for (index, leaf) in self.block(n, offset, &header)? {
                let (record, _) = Record::decode_what_fits(leaf).map_err(|e| ReadFault {
                    file: path.clone(),
                    offset,
                    index,
                    what: e.to_string(),
                    missing: false,
                })?;
                builder.record(&record);
            }
            offset = after(offset, &header);
        }
        Ok(builder.encode(&footer.root).map(|bytes| (bytes, footer.root)))
    }

    /// A fault within block `n`.
    pub fn fault(&self, n: u8, offset: u64, what: &dyn ToString, missing: bool) -> ReadFault {
        let index = block_first(self.first, n);
        ReadFault { file: self.path.clone(), offset, index, what: what.to_string(), missing }
    }
}

/// Where the block after this one begins.
pub fn after(offset: u64, header: &BlockHeader) -> u64 {
    offset + BLOCK_HEADER_LEN as u64 + u64::from(header.stored_len)
}
