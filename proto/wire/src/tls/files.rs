//! Small files that must survive a crash whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use zeroize::Zeroizing;

use crate::tls::TlsError;

/// Bytes of one file: a bundle of many authorities is far below.
const MAX_FILE_BYTES: u64 = 1 << 20;

fn failed(path: &Path) -> impl Fn(io::Error) -> TlsError {
    move |cause| TlsError::File { path: path.to_owned(), cause }
}

/// The whole text.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, TlsError> {
    read_open(path, File::open(path).map_err(failed(path))?)
}

/// The whole text of a private key, refused if any of the permission bits `forbidden` is set.
/// The bits are those of the open file: it cannot be exchanged in between.
pub(crate) fn read_key(path: &Path, forbidden: u32) -> Result<Zeroizing<String>, TlsError> {
    let file = File::open(path).map_err(failed(path))?;
    let mode = file.metadata().map_err(failed(path))?.permissions().mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(TlsError::KeyMode { path: path.to_owned(), mode });
    }
    read_open(path, file)
}

fn read_open(path: &Path, file: File) -> Result<Zeroizing<String>, TlsError> {
    let mut text = Zeroizing::new(String::new());
    let length = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed(path))?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(failed(path)(io::Error::other(format!("is longer than {MAX_FILE_BYTES} bytes"))));
    }
    Ok(text)
}

/// Makes a folder that only this user can enter, with what is above it.
pub(crate) fn make_dir(dir: &Path) -> Result<(), TlsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))
}

/// Writes aside, syncs and renames: a crash leaves the old file or the new one. The rename itself
/// lasts after [`sync_dir`].
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&temporary)(e)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(failed(&temporary))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(&temporary))?;
    rename(&temporary, path)
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), TlsError> {
    fs::rename(from, to).map_err(failed(to))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), TlsError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(failed(dir))
}
