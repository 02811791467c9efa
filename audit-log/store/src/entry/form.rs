//! The numbers, texts and bytes that entries and replies are made of.

use provost_audit_core::{Hash, LogId, MAX_CHECKPOINT_BYTES};
use provost_types::Name;

use super::MAX_HEADS;

pub(super) const VERSION: u8 = 1;
/// The longest entry or reply about keys, bytes: an erasure names all keys of one subject.
const MAX_KEYS_ENTRY: usize = 64 << 10;
/// The longest one about keeping records, bytes.
const MAX_RETENTION: usize = 16 * 1024;

/// An entry or a reply does not have its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an audit entry: {0}")]
pub struct EntryError(pub(super) &'static str);

/// A value in postcard form, behind its length. (Only allocation could fail.)
pub(super) fn put_postcard(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    put_bytes(out, &postcard::to_stdvec(value).unwrap_or_default());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn put_notes(out: &mut Vec<u8>, notes: &[String]) {
    out.extend_from_slice(&(notes.len() as u32).to_le_bytes());
    notes.iter().for_each(|note| put_bytes(out, note.as_bytes()));
}

/// Reads a form from its begin to its end.
pub(super) struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Take<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        found.copied().ok_or(EntryError("it is cut"))
    }

    pub(super) fn notes(&mut self) -> Result<Vec<String>, EntryError> {
        let count = self.count(MAX_HEADS)?;
        (0..count).map(|_| self.text(MAX_CHECKPOINT_BYTES)).collect()
    }

    pub(super) fn u8(&mut self) -> Result<u8, EntryError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, EntryError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, EntryError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn hash(&mut self) -> Result<Hash, EntryError> {
        self.array().map(Hash)
    }

    pub(super) fn count(&mut self, max: usize) -> Result<usize, EntryError> {
        let count = self.u32()? as usize;
        if count > max { Err(EntryError("too many items")) } else { Ok(count) }
    }

    pub(super) fn range(&mut self, max: usize) -> Result<std::ops::Range<usize>, EntryError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(EntryError("an item is too long"));
        }
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let range = self.at..end.ok_or(EntryError("it is cut"))?;
        self.at = range.end;
        Ok(range)
    }

    pub(super) fn text(&mut self, max: usize) -> Result<String, EntryError> {
        let range = self.range(max)?;
        let bytes = self.bytes.get(range).unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(|_| EntryError("a text is not UTF-8"))
    }

    pub(super) fn postcard<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, EntryError> {
        let range = self.range(MAX_RETENTION.max(MAX_KEYS_ENTRY))?;
        let bytes = self.bytes.get(range).unwrap_or_default();
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            _ => Err(EntryError("an entry cannot be read")),
        }
    }

    pub(super) fn log(&mut self) -> Result<LogId, EntryError> {
        self.log_after(None)
    }

    /// A log; mostly the same as the one `before`, whose checked name is then shared.
    pub(super) fn log_after(&mut self, before: Option<&LogId>) -> Result<LogId, EntryError> {
        let range = self.range(Name::MAX_LEN)?;
        let name = self.bytes.get(range).unwrap_or_default();
        if let Some(same) = before.filter(|before| before.tenant().as_bytes() == name) {
            return Ok(same.clone());
        }
        if name.is_empty() {
            return Ok(LogId::CLUSTER);
        }
        let name = std::str::from_utf8(name).map_err(|_| EntryError("a text is not UTF-8"))?;
        Name::new(name).map(|n| LogId(Some(n))).map_err(|_| EntryError("not a tenant's name"))
    }

    pub(super) fn end(&self) -> Result<(), EntryError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(EntryError("bytes follow its end")) }
    }
}
