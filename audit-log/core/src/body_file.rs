//! The file that holds a segment's sealed bodies: a header, then frames in the order of their
//! records.
//!
//! A frame whose bytes were changed is found by the hash in its record, so frames carry none.

use crate::{hash::Hash, record::MAX_LEAF};

/// Bytes of the header.
pub const BODY_HEADER_LEN: usize = 48;
/// Bytes before each body: index and length.
pub const BODY_PREFIX_LEN: usize = 12;
/// The longest body that a reader takes: 256 KiB and what sealing adds.
pub const MAX_STORED_BODY: usize = (256 << 10) + MAX_LEAF;

const MAGIC: &[u8; 8] = b"PVBODY\0\x01";

/// What stands at the start of a body file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyHeader {
    /// First leaf of the segment.
    pub first_index: u64,
    /// SHA-256 of the log's origin.
    pub origin: Hash,
}

/// What stands before each body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPrefix {
    /// The record that it belongs to.
    pub index: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// Not a body file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a body file: {0}")]
pub struct BodyFileError(pub &'static str);

impl BodyHeader {
    /// The bytes.
    pub fn encode(&self) -> [u8; BODY_HEADER_LEN] {
        let mut out = [0; BODY_HEADER_LEN];
        let parts = MAGIC.iter().copied().chain(self.first_index.to_le_bytes()).chain(self.origin.0);
        out.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        out
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8; BODY_HEADER_LEN]) -> Result<Self, BodyFileError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(BodyFileError("it does not begin with its mark"))?;
        let (first, rest) = rest.split_first_chunk().ok_or(BodyFileError("its header is cut"))?;
        let (origin, _) = rest.split_first_chunk().ok_or(BodyFileError("its header is cut"))?;
        Ok(Self { first_index: u64::from_le_bytes(*first), origin: Hash(*origin) })
    }
}

impl BodyPrefix {
    /// The bytes.
    pub fn encode(&self) -> [u8; BODY_PREFIX_LEN] {
        let mut out = [0; BODY_PREFIX_LEN];
        let parts = self.index.to_le_bytes().into_iter().chain(self.len.to_le_bytes());
        out.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        out
    }

    /// Reads what stands before a body; one that is longer than may be is refused.
    pub fn decode(bytes: &[u8; BODY_PREFIX_LEN]) -> Result<Self, BodyFileError> {
        let cut = BodyFileError("a frame is cut");
        let (index, rest) = bytes.split_first_chunk().ok_or(cut.clone())?;
        let (len, _) = rest.split_first_chunk().ok_or(cut)?;
        let (index, len) = (u64::from_le_bytes(*index), u32::from_le_bytes(*len));
        if len as usize > MAX_STORED_BODY {
            return Err(BodyFileError("a body is longer than one may be"));
        }
        Ok(Self { index, len })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_prefixes_are_read_back() {
        let header = BodyHeader { first_index: 65_536, origin: Hash([7; 32]) };
        assert_eq!(BodyHeader::decode(&header.encode()), Ok(header));
        let mut other = header.encode();
        other[7] = 2;
        assert!(BodyHeader::decode(&other).is_err(), "another version");
        let prefix = BodyPrefix { index: u64::MAX, len: 29 };
        assert_eq!(BodyPrefix::decode(&prefix.encode()), Ok(prefix));
        let long = BodyPrefix { index: 1, len: u32::MAX };
        assert!(BodyPrefix::decode(&long.encode()).is_err());
    }
}
