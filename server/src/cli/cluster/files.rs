//! Backup files: opening them, encrypted or not, and writing them whole or not at all.
//!
//! Encryption is age's (<https://age-encryption.org/v1>): to recipients who hold an identity; the
//! node that gives the backup never sees either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use age::{Decryptor, Encryptor, Recipient, stream::StreamWriter, x25519};
use anyhow::Context;

use crate::failure::Failure;

/// How an encrypted file begins.
const AGE_MAGIC: &[u8] = b"age-encryption.org/v1";

/// Opens a backup for reading, decrypted if it is encrypted.
pub fn open(path: &Path, identity: Option<&Path>) -> anyhow::Result<Box<dyn Read>> {
    let said = || format!("PV-BACKUP-IO: {} cannot be read", path.display());
    let mut start = Vec::new();
    File::open(path).with_context(said)?.take(AGE_MAGIC.len() as u64).read_to_end(&mut start).with_context(said)?;
    let file = BufReader::new(File::open(path).with_context(said)?);
    match (start == AGE_MAGIC, identity) {
        (false, _) => Ok(Box::new(file)),
        (true, None) => {
            let text = format!("{} is encrypted", path.display());
            Err(Failure::new("PV-BACKUP-IDENTITY", text, "give --age-identity FILE").into())
        }
        (true, Some(identity)) => {
            let refused = |cause: &dyn std::fmt::Display| {
                let text = format!("{} cannot be decrypted with {}: {cause}", path.display(), identity.display());
                Failure::new("PV-BACKUP-IDENTITY", text, "give the identity of one of its recipients")
            };
            let keys = age::IdentityFile::from_buffer(BufReader::new(File::open(identity).map_err(|e| refused(&e))?))
                .map_err(|e| refused(&e))?;
            let keys = keys.into_identities().map_err(|e| refused(&e))?;
            let decryptor = Decryptor::new(file).map_err(|e| refused(&e))?;
            let keys = keys.iter().map(|k| &**k as &dyn age::Identity);
            Ok(Box::new(decryptor.decrypt(keys).map_err(|e| refused(&e))?))
        }
    }
}

/// Reads `age1…`.
pub fn recipient(text: &str) -> Result<x25519::Recipient, String> {
    text.parse().map_err(|cause| format!("`{text}` is not an age recipient: {cause}"))
}

/// A file being written under another name; dropped before [`NewFile::finish`] it is removed.
pub struct NewFile {
    target: PathBuf,
    temporary: PathBuf,
    out: Option<Out>,
}

enum Out {
    Plain(Hashed),
    Sealed(StreamWriter<Hashed>),
}

/// Hashes what goes to the file, to compare with what is read back.
struct Hashed {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile {
    /// Begins a file that only its owner can read. `force`: it may replace another one.
    pub fn create(target: &Path, recipients: &[x25519::Recipient], force: bool) -> anyhow::Result<Self> {
        if !force && target.exists() {
            let text = format!("{} is there already", target.display());
            return Err(Failure::new("PV-BACKUP-TARGET", text, "choose another name, or give --force").into());
        }
        let mut temporary = target.as_os_str().to_owned();
        temporary.push(".part");
        let temporary = PathBuf::from(temporary);
        let said = || format!("PV-BACKUP-IO: {} cannot be written", temporary.display());
        // What a writer that was killed left.
        let _ = fs::remove_file(&temporary);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).with_context(said)?;
        let hashed = Hashed { file: BufWriter::new(file), hasher: blake3::Hasher::new() };
        let mut new = Self { target: target.to_owned(), temporary: temporary.clone(), out: None };
        new.out = Some(if recipients.is_empty() {
            Out::Plain(hashed)
        } else {
            let encryptor = Encryptor::with_recipients(recipients.iter().map(|r| r as &dyn Recipient))
                .context("PV-BACKUP-IDENTITY: the recipients cannot be used together")?;
            Out::Sealed(encryptor.wrap_output(hashed).with_context(said)?)
        });
        Ok(new)
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.out {
            Some(Out::Plain(out)) => out.write_all(bytes),
            Some(Out::Sealed(out)) => out.write_all(bytes),
            None => Err(io::Error::other("the file is finished")),
        }
    }

    /// Makes it durable, reads it back, and puts it in its place. A crash before that leaves a
    /// `.part`, after it the whole file.
    pub fn finish(mut self) -> io::Result<()> {
        let Hashed { file, hasher } = match self.out.take() {
            Some(Out::Plain(out)) => out,
            Some(Out::Sealed(out)) => out.finish()?,
            None => return Err(io::Error::other("the file is finished")),
        };
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        let mut read = blake3::Hasher::new();
        read.update_reader(File::open(&self.temporary)?)?;
        if read.finalize() != hasher.finalize() {
            return Err(io::Error::other("what was read back from the disk is not what was written"));
        }
        fs::rename(&self.temporary, &self.target)?;
        let dir = self.target.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
