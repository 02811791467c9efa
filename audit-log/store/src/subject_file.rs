//! Where a node keeps subjects' keys: a sealed file, and beside other keys the one that opens it.
//!
//! `DATA/audit-keys/keys` holds the state under a key-encryption key, `DATA/keys/audit-keys.kek`
//! holds that key. Neither is in the directory that an auditor copies. Both are replaced as a
//! whole. When keys were destroyed the key-encryption key is replaced too, and what the old files
//! held is written over, so that an older copy of the state that a disk still has somewhere can no
//! longer be opened with what is on that disk.
//!
//! If the process dies during a replacement: the key file names the old and the new key until the
//! state under the new one is in place, so that whichever state is there opens. What a renewal replaces
//! keeps a name (`.old`) until it is written over, as temporary files have one (`.new`): the next start
//! writes over both. One that finds two keys renews once more before it serves, so that the old key is
//! gone from the live file too.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    error::AuditError,
    persist::sync_dir,
    subject_secret::{KEY_BYTES, Secret},
    subject_state::SubjectState,
};

const MAGIC: &[u8; 8] = b"PVKEYS\0\x01";
/// Ends the name of a file that is about to take another's place.
const NEW: &str = ".new";
/// Ends the name of one whose place was taken.
const OLD: &str = ".old";
/// Bytes that are written over at a time.
const WIPE_CHUNK: usize = 64 << 10;

/// Where the two files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPaths {
    /// The sealed state.
    pub keys: PathBuf,
    /// The key that it is sealed under.
    pub kek: PathBuf,
}

impl SubjectPaths {
    /// Below a data directory.
    pub fn below(data_dir: &Path) -> Self {
        Self { keys: data_dir.join("audit-keys").join("keys"), kek: data_dir.join("keys").join("audit-keys.kek") }
    }
}

/// The two files.
#[derive(Clone, Debug)]
pub(crate) struct SubjectFile {
    paths: SubjectPaths,
    /// Tests only: how many steps of a replacement are left before the process dies.
    #[cfg(test)]
    pub steps_left: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl SubjectFile {
    pub(crate) fn new(paths: SubjectPaths) -> Self {
        Self {
            paths,
            #[cfg(test)]
            steps_left: std::sync::Arc::new(usize::MAX.into()),
        }
    }

    /// Reads the state; `None` when there is none. Ends what a replacement left undone that was cut off: when
    /// this returns nothing on disk leads to older states.
    pub(crate) fn read(&self) -> Result<Option<SubjectState>, AuditError> {
        for path in [&self.paths.keys, &self.paths.kek] {
            wipe_file(&beside(path, NEW)).map_err(AuditError::io(path))?;
            wipe_old(path).map_err(AuditError::io(path))?;
        }
        let state = self.peek()?;
        if let Some(state) = &state
            && self.read_kek()?.len() > 1
        {
            let path = &self.paths.keys;
            let plain = postcard::to_stdvec(state).map(Zeroizing::new).map_err(io::Error::other);
            plain.and_then(|plain| self.write(&plain, true)).map_err(AuditError::io(path))?;
            tracing::info!("a change of the key-encryption key that was cut off is ended");
        }
        Ok(state)
    }

    /// Reads the state beside a process that may be writing it.
    pub(crate) fn peek(&self) -> Result<Option<SubjectState>, AuditError> {
        let path = &self.paths.keys;
        let wrong = |why: &str| AuditError::Keys { path: path.clone(), why: why.to_owned() };
        let sealed = match fs::read(path) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(AuditError::io(path)(e)),
        };
        let body = sealed.strip_prefix(MAGIC).ok_or_else(|| wrong("it does not begin with its mark"))?;
        let keks = self.read_kek()?;
        let plain = keks.iter().find_map(|kek| kek.open(MAGIC, body));
        let plain = plain.ok_or_else(|| wrong("the key beside it does not open it"))?;
        postcard::from_bytes(&plain).map(Some).map_err(|_| wrong("its contents cannot be read"))
    }

    /// The keys that may have sealed the state: one, or two during a replacement.
    fn read_kek(&self) -> Result<Vec<Secret>, AuditError> {
        let path = &self.paths.kek;
        let wrong = |why: String| AuditError::Keys { path: path.clone(), why };
        let bytes = match fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(wrong("it is missing".to_owned())),
            Err(e) => return Err(AuditError::io(path)(e)),
        };
        let mode = fs::metadata(path).map_err(AuditError::io(path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong(format!("mode {:o} lets others read it; set 600", mode & 0o777)));
        }
        let keys: Vec<Secret> = bytes.chunks(KEY_BYTES).filter_map(Secret::from_slice).collect();
        if keys.is_empty() || bytes.len() % KEY_BYTES != 0 || keys.len() > 2 {
            return Err(wrong(format!("it holds {} bytes; one or two keys of {KEY_BYTES} are expected", bytes.len())));
        }
        Ok(keys)
    }

    /// Puts a state in place, durably. `renew`: under a new key, and nothing leads to older states
    /// any more when this returns.
    pub(crate) fn write(&self, plain: &[u8], renew: bool) -> io::Result<()> {
        for path in [&self.paths.keys, &self.paths.kek] {
            let dir = path.parent().unwrap_or(Path::new("."));
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let kek = match self.read_kek() {
            Ok(keys) => Some(self.in_use(keys)?),
            Err(_) if !self.paths.kek.exists() && !self.paths.keys.exists() => None,
            Err(e) => return Err(e.into()),
        };
        let (old, new) = match kek {
            Some(kek) if !renew => return self.replace(&self.paths.keys, &sealed(&kek, plain)?),
            Some(kek) => (Some(kek), Secret::random()?),
            None => (None, Secret::random()?),
        };
        let both = Zeroizing::new([old.as_ref().map_or(&[][..], |k| k.bytes()), new.bytes()].concat());
        self.replace_and_wipe(&self.paths.kek, &both)?;
        self.replace_and_wipe(&self.paths.keys, &sealed(&new, plain)?)?;
        if old.is_some() {
            self.replace_and_wipe(&self.paths.kek, new.bytes())?;
        }
        Ok(())
    }

    /// Of the keys in the key file the one that opens the state: only that one may outlive a change. Without a
    /// state it is the last.
    fn in_use(&self, mut keys: Vec<Secret>) -> io::Result<Secret> {
        let none = || io::Error::other("no key-encryption key opens the state");
        let last = keys.pop().ok_or_else(none)?;
        let Some(first) = keys.pop() else { return Ok(last) };
        let sealed = match fs::read(&self.paths.keys) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(last),
            Err(e) => return Err(e),
        };
        let body = sealed.strip_prefix(MAGIC).ok_or_else(none)?;
        let opens = |key: &Secret| key.open(MAGIC, body).is_some();
        [last, first].into_iter().find(opens).ok_or_else(none)
    }

    /// Replaces a file as a whole and writes over the old one.
    fn replace_and_wipe(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let old = match OpenOptions::new().write(true).open(path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if old.is_some() {
            // A crash before it is written over leaves it by this name. Where a file system has no second
            // names the blocks of such a file are lost track of, as docs/audit-privacy.md says.
            self.step()?;
            wipe_old(path)?;
            if let Err(cause) = fs::hard_link(path, beside(path, OLD)) {
                tracing::debug!(%cause, path = %path.display(), "the file gets no second name");
            }
        }
        self.replace(path, bytes)?;
        if let Some(old) = old {
            self.step()?;
            wipe(&old)?;
            self.step()?;
            wipe_old(path)?;
        }
        Ok(())
    }

    /// Replaces a file as a whole.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = beside(path, NEW);
        self.step()?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.step()?;
        fs::rename(&temporary, path)?;
        self.step()?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Where a test lets the process die.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering;
            let left = self.steps_left.fetch_sub(1, Ordering::SeqCst);
            if left == 0 {
                return Err(io::Error::other("the process died here"));
            }
        }
        Ok(())
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Writes over and removes what `path` was before its last renewal. If it still is that, the renewal did not
/// come to an end, and only the second name goes.
fn wipe_old(path: &Path) -> io::Result<()> {
    let old = beside(path, OLD);
    let file = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    match file(&old) {
        None => Ok(()),
        Some(same) if file(path) == Some(same) => fs::remove_file(&old),
        Some(_) => wipe_file(&old),
    }
}

fn sealed(kek: &Secret, plain: &[u8]) -> io::Result<Vec<u8>> {
    Ok([MAGIC.as_slice(), &kek.seal(MAGIC, plain)?].concat())
}

/// Writes over what a file holds. A disk that writes elsewhere than it was told keeps the old bytes
/// for a while all the same: `docs/audit-privacy.md` says what that means.
fn wipe(file: &File) -> io::Result<()> {
    let (len, zeros) = (file.metadata()?.len(), vec![0; WIPE_CHUNK]);
    let mut at = 0;
    while at < len {
        let now = (len - at).min(WIPE_CHUNK as u64);
        file.write_all_at(zeros.get(..now as usize).unwrap_or_default(), at)?;
        at += now;
    }
    file.sync_data()
}

/// Writes over a file and removes it, if it is there.
fn wipe_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => wipe(&file).and_then(|()| fs::remove_file(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}
