//! Keys and tokens that a node keeps in files which only its owner may read.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use anyhow::Context;
use provost_control_api::AdminToken;
use secrecy::ExposeSecret;

/// Bytes of the key that seals session ids and MRTR states (AES-256-GCM).
const SESSION_KEY_BYTES: usize = 32;

/// Makes a directory with mode 0700 if it is not there.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Reads a file, or makes it with what `make` returns, durably and with mode 0600.
fn read_or_make(path: &Path, make: impl FnOnce() -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let bytes = make()?;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            Ok(bytes)
        }
        Err(cause) => Err(cause).with_context(|| format!("PV-NODE-KEY: {} cannot be read", path.display())),
    }
}

/// The key for sealed session ids; made at the first start.
pub fn session_key(path: &Path) -> anyhow::Result<[u8; SESSION_KEY_BYTES]> {
    let bytes = read_or_make(path, || {
        let key: [u8; SESSION_KEY_BYTES] = rand::random();
        Ok(key.to_vec())
    })?;
    bytes.try_into().map_err(|_| {
        anyhow::anyhow!(
            "PV-NODE-KEY: {} does not hold {SESSION_KEY_BYTES} bytes; delete it (clients \
             will have to start new sessions) and start again",
            path.display()
        )
    })
}

/// The admin token of `provost dev`; made at the first start.
pub fn admin_token(path: &Path) -> anyhow::Result<String> {
    let bytes = read_or_make(path, || {
        let (token, _) = AdminToken::generate("admin")?;
        Ok(token.expose_secret().as_bytes().to_vec())
    })?;
    let token = String::from_utf8(bytes).with_context(|| format!("PV-NODE-KEY: {} is not text", path.display()))?;
    Ok(token.trim().to_owned())
}
