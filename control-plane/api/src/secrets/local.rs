//! The key provider for development and single machines: a key in a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use zeroize::Zeroizing;

use super::{
    KeyProvider, SecretError,
    cipher::{Cipher, KEY_BYTES, random_key},
};

const WRAP_CONTEXT: &[u8] = b"provost data key 1";

/// A key in a file that only this user can read: for development and single machines. A node that
/// joins a cluster needs a copy of the file.
pub struct LocalFileKey(Cipher);

impl LocalFileKey {
    /// Opens the key file, or makes it (mode 0600, synced before it is used).
    pub fn open(path: &Path) -> Result<Self, SecretError> {
        let key = match File::open(path) {
            Ok(file) => read_key(path, file)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => make_key(path)?,
            Err(e) => return Err(at(path, &e)),
        };
        Ok(Self(Cipher::new(&key)?))
    }

    /// Opens the key file, which is there: a key that a node of a cluster made for itself would open nothing of what
    /// the others seal.
    pub fn open_present(path: &Path) -> Result<Self, SecretError> {
        let file = File::open(path).map_err(|e| at(path, &e))?;
        let key = read_key(path, file)?;
        Ok(Self(Cipher::new(&key)?))
    }

    /// Copies a key file to where a node looks for it, and never over another one.
    pub fn copy(from: &Path, to: &Path) -> Result<(), SecretError> {
        let key = read_key(from, File::open(from).map_err(|e| at(from, &e))?)?;
        write_key(to, &key)
    }
}

fn read_key(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        let text = format!("{} can be read by others; run `chmod 600` on it", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
    }
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
    if key.len() != KEY_BYTES {
        let text = format!("{} is not a key of {KEY_BYTES} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
    }
    Ok(key)
}

fn make_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let key = random_key()?;
    write_key(path, &key)?;
    Ok(key)
}

/// The failure with the file that it is about.
fn at(path: &Path, cause: &io::Error) -> SecretError {
    io::Error::new(cause.kind(), format!("{}: {cause}", path.display())).into()
}

/// Written aside and linked into place: a crash leaves no key or a whole one, and a key that is
/// there already stays.
fn write_key(path: &Path, key: &[u8]) -> Result<(), SecretError> {
    write_aside(path, key).map_err(|cause| at(path, &cause))
}

fn write_aside(path: &Path, key: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(key)?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked?;
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

impl KeyProvider for LocalFileKey {
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, SecretError> {
        self.0.seal(WRAP_CONTEXT, key)
    }
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.0.open(WRAP_CONTEXT, wrapped, "the cluster's data key")
    }
}
