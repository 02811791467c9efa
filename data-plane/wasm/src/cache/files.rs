//! Private folders, and files that are written once.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Bits of a mode by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;
/// How names of files begin that are not finished.
const UNFINISHED: &str = ".unfinished-";

/// Makes a folder that only this user may enter, or looks whether the one that is there can be trusted.
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(cause),
    }
    let found = fs::metadata(folder)?;
    if !found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder"));
    }
    if found.permissions().mode() & OTHERS_WRITE != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it (chmod go-w)"));
    }
    Ok(())
}

/// Writes a file under another name and renames it, so that nobody ever sees a part of it.
pub(super) fn write_once(folder: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let unfinished = unfinished(folder);
    let written = write_all(&unfinished, parts).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Like [`write_once`], but a file that is there already stays, and `AlreadyExists` is the error.
pub(super) fn create_once(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(folder);
    let written = write_all(&unfinished, &[content]).and_then(|()| fs::hard_link(&unfinished, path));
    let _ = fs::remove_file(&unfinished);
    written
}

fn unfinished(folder: &Path) -> PathBuf {
    folder.join(format!("{UNFINISHED}{:016x}", rand::random::<u64>()))
}

fn write_all(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.set_permissions(Permissions::from_mode(0o400))
}

/// Removes files by name, unfinished ones always. How many.
pub(super) fn remove_where(folder: &Path, is_unwanted: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_file() && (name.starts_with(UNFINISHED) || is_unwanted(&name)) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A path that leads to this open file, whatever its name leads to.
pub(super) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
