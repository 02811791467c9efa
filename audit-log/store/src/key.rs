//! The checkpoint key: Ed25519, one for the group, kept in one file on each replica. The first
//! replica makes it, the others get it from one that has it.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use provost_audit_core::{NoteSigner, VerifierKey};

use crate::{error::AuditError, persist::sync_dir};

/// Signs checkpoints. The private key stays in aws-lc-rs and in its file.
pub struct CheckpointKey(Ed25519KeyPair);

impl CheckpointKey {
    /// Reads the key in `path`, or makes one when there is no such file.
    ///
    /// A file that others may read is refused: its key may be known to others. A crash while the
    /// key is being made leaves at most a temporary file.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let wrong = |why: String| AuditError::Key { path: path.to_owned(), why };
        if !path.exists() {
            Self::create(path)?;
        }
        let mode = fs::metadata(path).map_err(AuditError::io(path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong(format!("mode {:o} lets others read it; set 600", mode & 0o777)));
        }
        let pkcs8 = fs::read(path).map_err(AuditError::io(path))?;
        let pair =
            Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|e| wrong(format!("not an Ed25519 key in PKCS#8: {e}")))?;
        Ok(Self(pair))
    }

    /// Keeps the group's key as another replica gave it. A file that is there already is not
    /// replaced.
    pub fn install(path: &Path, pkcs8: &[u8]) -> Result<Self, AuditError> {
        let wrong = |why: String| AuditError::Key { path: path.to_owned(), why };
        Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|e| wrong(format!("another replica gave no Ed25519 key: {e}")))?;
        if !path.exists() {
            Self::write(path, pkcs8)?;
        }
        Self::open(path)
    }

    /// Replaces the file by what another replica gave, if that is the key with this public half.
    pub(crate) fn replace(path: &Path, pkcs8: &[u8], wanted: [u8; 32]) -> Result<Option<Self>, AuditError> {
        if Self::public_half(pkcs8) != Some(wanted) {
            return Ok(None);
        }
        Self::write(path, pkcs8)?;
        Self::open(path).map(Some)
    }

    /// The public key of these bytes, if they are a key.
    pub(crate) fn public_half(pkcs8: &[u8]) -> Option<[u8; 32]> {
        Ed25519KeyPair::from_pkcs8(pkcs8).ok().map(|pair| Self(pair).public_key())
    }

    /// The key itself, for another replica. Secret.
    pub(crate) fn secret_pkcs8(&self) -> Result<Vec<u8>, AuditError> {
        let made = self.0.to_pkcs8().map_err(|e| AuditError::Unavailable(e.to_string()))?;
        Ok(made.as_ref().to_vec())
    }

    fn create(path: &Path) -> Result<(), AuditError> {
        let made = Ed25519KeyPair::generate()
            .and_then(|pair| pair.to_pkcs8())
            .map_err(|e| AuditError::Key { path: path.to_owned(), why: e.to_string() })?;
        Self::write(path, made.as_ref())
    }

    pub(crate) fn write(path: &Path, pkcs8: &[u8]) -> Result<(), AuditError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(AuditError::io(dir))?;
        // Beside the file, under a name of its own: keys that wait there may be written at the same time.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = Path::new(&temporary);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
            file.write_all(pkcs8)?;
            file.sync_all()?;
            fs::rename(temporary, path)?;
            sync_dir(dir)
        };
        write().map_err(AuditError::io(path))
    }

    /// The public key under a log's name.
    pub fn verifier_key(&self, origin: &str) -> VerifierKey {
        VerifierKey { name: origin.to_owned(), public_key: self.public_key() }
    }
}

impl NoteSigner for CheckpointKey {
    fn public_key(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.public_key().as_ref());
        out
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.sign(message).as_ref());
        out
    }
}
