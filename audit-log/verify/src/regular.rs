//! Opens files of a directory that somebody else made, and may have made to stop the reader.
//!
//! A pipe under the name of a file would be waited for without end, and a device has no end: only regular files are
//! read, after links were followed. The name is asked first, so that no device is opened at all; the open file
//! is asked again, because the name may be another's by then. Without waiting, so that a pipe put there in
//! between does not hold the open either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

/// The longest `audit.pub`: a name, a key id and 44 characters of base64.
pub(crate) const MAX_KEY_BYTES: usize = 4 * 1024;
/// The longest list of keys: a thousand of about 200 bytes, with room.
pub(crate) const MAX_KEYS_BYTES: usize = 1024 * 1024;

/// Opens a regular file for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(refused());
    }
    Ok(file)
}

/// A regular file of at most `most` bytes; [`io::ErrorKind::FileTooLarge`] where it is longer.
pub(crate) fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file (a folder, a pipe or a device)")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_no_more_of_them_than_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), b"four").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink(at("pipe"), at("to-pipe")).unwrap();
        assert_eq!(
            (read(&at("file"), 4).unwrap(), read(&at("link"), 4).unwrap()),
            (b"four".to_vec(), b"four".to_vec())
        );
        assert_eq!(read(&at("link"), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for name in ["zero", "pipe", "to-pipe", "."] {
            assert_eq!(open(&at(name)).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        for name in ["dangling", "none"] {
            assert_eq!(open(&at(name)).unwrap_err().kind(), io::ErrorKind::NotFound, "{name}");
        }
    }
}
