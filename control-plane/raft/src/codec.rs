//! Stored and wire forms of Raft's own records: one version byte, then postcard.
//!
//! The version byte lets a later release read what an earlier one wrote during a rolling upgrade.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

/// Version of every record that this build writes. Version 1 had leader ids of term and node.
const VERSION: u8 = 2;

/// Bytes of a small record, and most of what a record has beside the commands in it.
pub(crate) const SMALL: usize = 64;

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    encode_about(value, SMALL)
}

/// The same of a record that has about so many bytes: its place need not grow.
pub(crate) fn encode_about<T: Serialize>(value: &T, bytes: usize) -> io::Result<Vec<u8>> {
    let mut record = Vec::with_capacity(bytes);
    record.push(VERSION);
    postcard::to_extend(value, record).map_err(io::Error::other)
}

/// The part of a record that comes after another: postcard writes a tuple as its parts in a row.
pub(crate) fn encode_part<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        Some((version, _)) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("record of version {version}; this build reads version {VERSION}"),
        )),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "empty record")),
    }
}
