//! The archive around a package: which entries, in which order, in which one form.

use std::{io, ops::Range};

use tar::{Archive, Builder, EntryType, Header};

use crate::{PackageError, package::MAX_PARTS};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SIGNATURE: &str = "signature.json";
/// Names that parts cannot have.
pub(crate) const RESERVED: [&str; 2] = [MANIFEST, SIGNATURE];
/// Read by everybody, written by the owner; nothing that was there on the author's machine is kept.
const MODE: u32 = 0o644;

/// The archive of entries, in their order. The same entries make the same bytes.
pub(crate) fn write<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = Header::new_ustar();
        header.set_mode(MODE);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content)?;
    }
    archive.into_inner()
}

/// The entries of an archive: names, and where their contents are. Whether the archive is in its one form is for
/// the caller to see, by writing it again.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<(String, Range<usize>)>, PackageError> {
    let unread = |e: io::Error| PackageError::Format(format!("not a readable archive: {e}"));
    let mut found = Vec::new();
    let mut archive = Archive::new(bytes);
    for entry in archive.entries().map_err(unread)?.raw(true) {
        let entry = entry.map_err(unread)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != EntryType::Regular {
            return Err(PackageError::Format(format!("`{name}` is not a plain file")));
        }
        if found.len() > MAX_PARTS + RESERVED.len() {
            return Err(PackageError::Format(format!("it has more than {MAX_PARTS} parts")));
        }
        let range = usize::try_from(entry.raw_file_position()).ok().zip(usize::try_from(entry.size()).ok());
        let range = range.and_then(|(at, size)| Some(at..at.checked_add(size)?)).filter(|r| r.end <= bytes.len());
        let range = range.ok_or_else(|| PackageError::Format(format!("it ends within `{name}`")))?;
        found.push((name, range));
    }
    Ok(found)
}
