//! Bytes on disk: segment header, blocks, segment footer, and the open tail.
//!
//! A segment holds 65,536 leaves in 256 blocks of 256 leaves; a block is compressed, and every
//! hash is over uncompressed bytes. Records that do not fill a block yet stand uncompressed in
//! the tail. All numbers are little-endian. `docs/audit-format.md` draws it.
//! Invariants: decoding allocates at most what the header may claim ([`MAX_BLOCK_RAW`]), and the
//! claim is checked against the bytes that came out.

use std::ops::Range;

use crate::{hash::Hash, record::MAX_LEAF};

/// Leaves in a block.
pub const BLOCK_RECORDS: u64 = 256;
/// Blocks in a segment.
pub const SEGMENT_BLOCKS: u64 = 256;
/// Leaves in a segment.
pub const SEGMENT_LEAVES: u64 = BLOCK_RECORDS * SEGMENT_BLOCKS;
/// The longest uncompressed body of a block.
pub const MAX_BLOCK_RAW: usize = BLOCK_RECORDS as usize * (FRAME_PREFIX_LEN + MAX_LEAF);
/// Bytes before each leaf in a block's body: its length.
pub const FRAME_PREFIX_LEN: usize = 4;
/// Bytes before each leaf in the tail: its length and its leaf hash.
pub const TAIL_PREFIX_LEN: usize = 4 + 32;
/// Length of an encoded [`SegmentHeader`].
pub const SEGMENT_HEADER_LEN: usize = 8 + 8 + 32 + 32;
/// Length of an encoded [`BlockHeader`].
pub const BLOCK_HEADER_LEN: usize = 4 + 4 + 8 + 4 + 4 + 8 + 8 + 32 + 32;
/// Length of an encoded [`SegmentFooter`].
pub const SEGMENT_FOOTER_LEN: usize = 4 + 4 + 8 + 32 + 32;
/// Length of an encoded [`TailHeader`].
pub const TAIL_HEADER_LEN: usize = 8 + 8 + 32;

const SEGMENT_MAGIC: [u8; 8] = *b"PVSEG\0\0\x01";
const TAIL_MAGIC: [u8; 8] = *b"PVTAIL\0\x01";
const BLOCK_MAGIC: [u8; 4] = *b"PVB1";
const FOOTER_MAGIC: [u8; 4] = *b"PVF1";
/// Fast enough not to show on the commit path and already small: records repeat themselves.
const ZSTD_LEVEL: i32 = 1;

/// Why bytes are not a part of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Fewer bytes than the part has.
    #[error("the bytes end within the {0}")]
    Cut(&'static str),
    /// Other first bytes.
    #[error("the {0} does not begin with its mark")]
    Magic(&'static str),
    /// A number outside its bounds.
    #[error("the {0} is out of bounds")]
    Bounds(&'static str),
    /// The body does not decompress to what the header says.
    #[error("the block's body does not decompress: {0}")]
    Compression(String),
}

/// First bytes of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Index of the segment's first leaf.
    pub first_index: u64,
    /// SHA-256 of the log's origin.
    pub origin: Hash,
    /// Running chain before the first leaf.
    pub chain_in: Hash,
}

impl SegmentHeader {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_LEN);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&self.first_index.to_le_bytes());
        out.extend_from_slice(&self.origin.0);
        out.extend_from_slice(&self.chain_in.0);
        out
    }

    /// Reads the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut take = Take::new(bytes, "segment header");
        take.magic(&SEGMENT_MAGIC)?;
        Ok(Self { first_index: take.u64()?, origin: take.hash()?, chain_in: take.hash()? })
    }
}

/// First bytes of a tail file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailHeader {
    /// Index of the tail's first leaf: a multiple of [`BLOCK_RECORDS`].
    pub first_index: u64,
    /// Running chain before it.
    pub chain_in: Hash,
}

impl TailHeader {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TAIL_HEADER_LEN);
        out.extend_from_slice(&TAIL_MAGIC);
        out.extend_from_slice(&self.first_index.to_le_bytes());
        out.extend_from_slice(&self.chain_in.0);
        out
    }

    /// Reads the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut take = Take::new(bytes, "tail header");
        take.magic(&TAIL_MAGIC)?;
        let first_index = take.u64()?;
        if !first_index.is_multiple_of(BLOCK_RECORDS) {
            return Err(BlockError::Bounds("tail's first index"));
        }
        Ok(Self { first_index, chain_in: take.hash()? })
    }
}

/// What stands before a block's compressed body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Leaves in the block: always [`BLOCK_RECORDS`].
    pub count: u32,
    /// Index of the first leaf.
    pub first_index: u64,
    /// Bytes of the body once decompressed.
    pub raw_len: u32,
    /// Bytes of the body as stored.
    pub stored_len: u32,
    /// Earliest `time_ns` in the block, so that a query can pass it over.
    pub min_time_ns: u64,
    /// Latest `time_ns` in the block.
    pub max_time_ns: u64,
    /// Running chain before the first leaf.
    pub chain_in: Hash,
    /// Running chain after the last leaf.
    pub chain_out: Hash,
}

impl BlockHeader {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&BLOCK_MAGIC);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.first_index.to_le_bytes());
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.min_time_ns.to_le_bytes());
        out.extend_from_slice(&self.max_time_ns.to_le_bytes());
        out.extend_from_slice(&self.chain_in.0);
        out.extend_from_slice(&self.chain_out.0);
    }

    /// Reads the bytes and checks every number against its bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut take = Take::new(bytes, "block header");
        take.magic(&BLOCK_MAGIC)?;
        let header = Self {
            count: take.u32()?,
            first_index: take.u64()?,
            raw_len: take.u32()?,
            stored_len: take.u32()?,
            min_time_ns: take.u64()?,
            max_time_ns: take.u64()?,
            chain_in: take.hash()?,
            chain_out: take.hash()?,
        };
        if u64::from(header.count) != BLOCK_RECORDS {
            return Err(BlockError::Bounds("block's count"));
        }
        let first = header.first_index;
        if !first.is_multiple_of(BLOCK_RECORDS) || first > u64::MAX - SEGMENT_LEAVES {
            return Err(BlockError::Bounds("block's first index"));
        }
        let raw = header.raw_len as usize;
        if raw > MAX_BLOCK_RAW || raw < BLOCK_RECORDS as usize * FRAME_PREFIX_LEN {
            return Err(BlockError::Bounds("block's length"));
        }
        if header.stored_len as usize > zstd::zstd_safe::compress_bound(raw) {
            return Err(BlockError::Bounds("block's stored length"));
        }
        Ok(header)
    }
}

/// Last bytes of a full segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFooter {
    /// Index of the segment's first leaf.
    pub first_index: u64,
    /// RFC 6962 root of the segment's 65,536 leaves.
    pub root: Hash,
    /// Running chain after the last leaf.
    pub chain_out: Hash,
}

impl SegmentFooter {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_FOOTER_LEN);
        out.extend_from_slice(&FOOTER_MAGIC);
        out.extend_from_slice(&(SEGMENT_LEAVES as u32).to_le_bytes());
        out.extend_from_slice(&self.first_index.to_le_bytes());
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.chain_out.0);
        out
    }

    /// Reads the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut take = Take::new(bytes, "segment footer");
        take.magic(&FOOTER_MAGIC)?;
        if u64::from(take.u32()?) != SEGMENT_LEAVES {
            return Err(BlockError::Bounds("segment's count"));
        }
        Ok(Self { first_index: take.u64()?, root: take.hash()?, chain_out: take.hash()? })
    }
}

/// A full block: header and compressed body, ready to be appended to its segment.
///
/// `raw` is the body: each leaf behind its length. `times` are the earliest and latest `time_ns`.
pub fn encode_block(
    first_index: u64,
    raw: &[u8],
    times: (u64, u64),
    chain: (Hash, Hash),
) -> Result<Vec<u8>, BlockError> {
    let raw_len = u32::try_from(raw.len()).map_err(|_| BlockError::Bounds("block's length"))?;
    let body = compress(raw).map_err(|e| BlockError::Compression(e.to_string()))?;
    let header = BlockHeader {
        count: BLOCK_RECORDS as u32,
        first_index,
        raw_len,
        stored_len: u32::try_from(body.len()).map_err(|_| BlockError::Bounds("body"))?,
        min_time_ns: times.0,
        max_time_ns: times.1,
        chain_in: chain.0,
        chain_out: chain.1,
    };
    let mut out = Vec::with_capacity(BLOCK_HEADER_LEN + body.len());
    header.encode_into(&mut out);
    out.extend_from_slice(&body);
    Ok(out)
}

/// With zstd's own checksum, so that a flipped bit shows even where it decodes to something.
fn compress(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
    compressor.compress(raw)
}

/// Decompresses a block's body into `raw` (its contents are replaced, its room is re-used).
pub fn decode_body(header: &BlockHeader, stored: &[u8], raw: &mut Vec<u8>) -> Result<(), BlockError> {
    BodyDecoder::default().decode(header, stored, raw)
}

/// Decompresses the bodies of many blocks, one after the other, with one set of tables.
#[derive(Default)]
pub struct BodyDecoder(Option<zstd::bulk::Decompressor<'static>>);

impl BodyDecoder {
    /// As [`decode_body`].
    pub fn decode(&mut self, header: &BlockHeader, stored: &[u8], raw: &mut Vec<u8>) -> Result<(), BlockError> {
        let wrong = |e: std::io::Error| BlockError::Compression(e.to_string());
        raw.clear();
        raw.reserve(header.raw_len as usize);
        let decompressor = match &mut self.0 {
            Some(known) => known,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(wrong)?),
        };
        let written = decompressor.decompress_to_buffer(stored, raw).map_err(wrong)?;
        if written != header.raw_len as usize {
            return Err(BlockError::Compression(format!(
                "{written} bytes came out, the header says {}",
                header.raw_len
            )));
        }
        Ok(())
    }
}

/// Takes zstd's checksum out of a frame, so that decoding it costs a fifth less: for those who compare the
/// hash of every leaf, which says more (RFC 8878, section 3.1.1: a flag, and the last four bytes).
/// What is no such frame stays as it is.
pub fn without_checksum(frame: &mut Vec<u8>) {
    const MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
    const CHECKSUM_FLAG: u8 = 1 << 2;
    const CHECKSUM_LEN: usize = 4;
    if let Some((magic, [descriptor, ..])) = frame.split_first_chunk_mut()
        && *magic == MAGIC
        && *descriptor & CHECKSUM_FLAG != 0
    {
        *descriptor &= !CHECKSUM_FLAG;
        frame.truncate(frame.len().saturating_sub(CHECKSUM_LEN));
    }
}

/// The leaves of a block's body, as ranges of it.
pub struct Leaves<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Leaves<'a> {
    /// Walks `raw`.
    pub fn new(raw: &'a [u8]) -> Self {
        Self { raw, at: 0 }
    }
}

impl Iterator for Leaves<'_> {
    type Item = Result<Range<usize>, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.raw.len() {
            return None;
        }
        let mut take = Take { bytes: self.raw, at: self.at, part: "record" };
        let found = take.u32().and_then(|len| {
            let end = take.at.checked_add(len as usize).filter(|end| *end <= self.raw.len());
            let end = end.ok_or(BlockError::Cut("record"))?;
            if len as usize > MAX_LEAF {
                return Err(BlockError::Bounds("record's length"));
            }
            Ok(take.at..end)
        });
        // After an error nothing more can be told apart.
        self.at = found.as_ref().map_or(self.raw.len(), |range| range.end);
        Some(found)
    }
}

/// Appends one leaf in the tail's form.
pub fn push_tail_frame(out: &mut Vec<u8>, leaf: &[u8], hash: &Hash) {
    out.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
    out.extend_from_slice(&hash.0);
    out.extend_from_slice(leaf);
}

struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
    part: &'static str,
}

impl<'a> Take<'a> {
    fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self { bytes, at: 0, part }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        found.copied().ok_or(BlockError::Cut(self.part))
    }

    fn magic<const N: usize>(&mut self, magic: &[u8; N]) -> Result<(), BlockError> {
        if self.array::<N>()? == *magic { Ok(()) } else { Err(BlockError::Magic(self.part)) }
    }

    fn u32(&mut self) -> Result<u32, BlockError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BlockError> {
        self.array().map(u64::from_le_bytes)
    }

    fn hash(&mut self) -> Result<Hash, BlockError> {
        self.array().map(Hash)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw() -> Vec<u8> {
        let mut raw = Vec::new();
        for n in 0..BLOCK_RECORDS {
            let leaf = format!("record {n}");
            raw.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
            raw.extend_from_slice(leaf.as_bytes());
        }
        raw
    }

    fn block() -> Vec<u8> {
        encode_block(512, &raw(), (1, 2), (Hash([1; 32]), Hash([2; 32]))).unwrap()
    }

    #[test]
    fn blocks_round_trip() {
        let bytes = block();
        let header = BlockHeader::decode(&bytes).unwrap();
        assert_eq!(header.stored_len as usize, bytes.len() - BLOCK_HEADER_LEN);
        let mut out = Vec::new();
        decode_body(&header, &bytes[BLOCK_HEADER_LEN..], &mut out).unwrap();
        assert_eq!(out, raw());
        let leaves: Result<Vec<_>, _> = Leaves::new(&out).collect();
        assert_eq!(leaves.unwrap().len() as u64, BLOCK_RECORDS);
        for cut in 0..BLOCK_HEADER_LEN {
            assert!(BlockHeader::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_body_shows() {
        let bytes = block();
        let header = BlockHeader::decode(&bytes).unwrap();
        for bit in (0..(bytes.len() - BLOCK_HEADER_LEN) * 8).step_by(3) {
            let mut body = bytes[BLOCK_HEADER_LEN..].to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            let mut out = Vec::new();
            let read = decode_body(&header, &body, &mut out);
            assert!(read.is_err() || out == raw(), "bit {bit} changed the body unseen");
        }
    }

    #[test]
    fn the_checksum_goes_and_the_body_stays() {
        let bytes = block();
        let header = BlockHeader::decode(&bytes).unwrap();
        let stored = &bytes[BLOCK_HEADER_LEN..];
        let mut frame = stored.to_vec();
        without_checksum(&mut frame);
        assert_eq!(frame.len(), stored.len() - 4);
        let mut out = Vec::new();
        decode_body(&header, &frame, &mut out).unwrap();
        assert_eq!(out, raw());
        let once = frame.clone();
        without_checksum(&mut frame);
        assert_eq!(frame, once, "there is none any more");
        for len in 0..6 {
            let mut cut = stored[..len].to_vec();
            without_checksum(&mut cut);
            assert!(cut.len() <= len && decode_body(&header, &cut, &mut out).is_err());
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let mut header = BlockHeader::decode(&block()).unwrap();
        header.stored_len = bomb.len() as u32;
        let mut out = Vec::new();
        assert!(decode_body(&header, &bomb, &mut out).is_err());
        assert!(out.capacity() <= MAX_BLOCK_RAW, "no more room than the header may claim");

        let mut bytes = block();
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(BlockHeader::decode(&bytes), Err(BlockError::Bounds("block's length")));
        bytes[16..20].copy_from_slice(&2048u32.to_le_bytes());
        bytes[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(BlockHeader::decode(&bytes), Err(BlockError::Bounds("block's stored length")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BlockHeader::decode(&bytes);
            let _ = SegmentHeader::decode(&bytes);
            let _ = SegmentFooter::decode(&bytes);
            let _ = TailHeader::decode(&bytes);
            let _ = Leaves::new(&bytes).count();
        }
    }
}
