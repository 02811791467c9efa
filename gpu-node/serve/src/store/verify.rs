//! Whether a stored model is what its digest says.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use provost_gpu_infer::InferError;
use provost_types::FileDigest;

use super::manifest::{MANIFEST, Manifest, digest_of, hashed, is_plain};

/// The most files and folders of a model that are looked at.
pub(super) const MOST_ENTRIES: usize = 4096;
/// The deepest folder of a model that is looked at.
pub(super) const MOST_DEPTH: usize = 8;

/// A stored model, and which state of its files was found to be right.
#[derive(Debug)]
pub(crate) struct Verified {
    place: PathBuf,
    digest: FileDigest,
    right: Mutex<Option<Stamps>>,
}

/// Of each file: name, length, inode, and the times of its last change of content and of anything. A file whose content is
/// changed gets another last one, which nothing but the system sets.
type Stamps = Vec<(String, u64, u64, (i64, i64), (i64, i64))>;

impl Verified {
    pub(crate) fn new(place: PathBuf, digest: FileDigest) -> Self {
        Self { place, digest, right: Mutex::new(None) }
    }

    pub(crate) fn digest(&self) -> FileDigest {
        self.digest
    }

    /// Checks all files, unless nothing about them has changed since they were found to be right.
    ///
    /// # Errors
    /// [`InferError::Tampered`] when the model is not what its digest says.
    pub(crate) fn check(&self, model: &str) -> Result<(), InferError> {
        let tampered = |cause: String| InferError::Tampered { model: model.to_owned(), cause };
        let before = stamps(&self.place).map_err(tampered)?;
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.as_ref() == Some(&before) {
            return Ok(());
        }
        *right = None;
        check_files(&self.place, self.digest).map_err(tampered)?;
        // What changed meanwhile is looked at again.
        if stamps(&self.place).map_err(tampered)? == before {
            *right = Some(before);
        }
        Ok(())
    }

    /// Checks that nothing about the files has changed since they were found to be right: what was read of them since is
    /// what the digest says.
    ///
    /// # Errors
    /// [`InferError::Tampered`] when something has.
    pub(crate) fn check_same(&self, model: &str) -> Result<(), InferError> {
        let tampered = |cause: String| InferError::Tampered { model: model.to_owned(), cause };
        let now = stamps(&self.place).map_err(tampered)?;
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        match right.as_ref() == Some(&now) {
            true => Ok(()),
            false => Err(tampered("its files changed while they were read".to_owned())),
        }
    }
}

/// Checks a stored model against its digest: every file, and that there are no others. Says what is otherwise.
pub(crate) fn check_files(place: &Path, digest: FileDigest) -> Result<(), String> {
    let manifest = Manifest::read(place).map_err(|cause| format!("its manifest cannot be read ({cause})"))?;
    if digest_of(&manifest.files) != digest {
        return Err(format!("its manifest is not that of {digest}"));
    }
    let mut found = BTreeSet::new();
    walk(place, "", &mut found)?;
    found.remove(MANIFEST);
    let named: BTreeSet<String> = manifest.files.iter().map(|file| file.path.clone()).collect();
    if let Some(other) = found.symmetric_difference(&named).next() {
        let what = if named.contains(other) { "is not there" } else { "does not belong to it" };
        return Err(format!("{other} {what}"));
    }
    for file in manifest.files.iter().filter(|file| is_plain(&file.path)) {
        let read = File::open(place.join(&file.path)).and_then(|mut reader| hashed(&mut reader, |_| Ok(())));
        let (bytes, sha256) = read.map_err(|cause| format!("{}: {cause}", file.path))?;
        if (bytes, sha256) != (file.bytes, file.sha256) {
            return Err(format!("{} is not what was imported", file.path));
        }
    }
    Ok(())
}

/// The names of all files under a folder. Links are none: where they lead may change.
fn walk(place: &Path, below: &str, found: &mut BTreeSet<String>) -> Result<(), String> {
    let folder = place.join(below);
    let entries = fs::read_dir(&folder).map_err(|cause| format!("{}: {cause}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|cause| cause.to_string())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(|cause| cause.to_string())?;
        if found.len() >= MOST_ENTRIES {
            return Err(format!("it has more than {MOST_ENTRIES} files"));
        }
        if kind.is_dir() && path.matches('/').count() < MOST_DEPTH {
            walk(place, &path, found)?;
        } else if kind.is_file() {
            found.insert(path);
        } else {
            return Err(format!("{path} is no file"));
        }
    }
    Ok(())
}

fn stamps(place: &Path) -> Result<Stamps, String> {
    let mut names = BTreeSet::new();
    walk(place, "", &mut names)?;
    let stamp = |name: String| {
        let facts = fs::symlink_metadata(place.join(&name)).map_err(|cause| format!("{name}: {cause}"))?;
        let (written, changed) = ((facts.mtime(), facts.mtime_nsec()), (facts.ctime(), facts.ctime_nsec()));
        Ok((name, facts.len(), facts.ino(), written, changed))
    };
    names.into_iter().map(stamp).collect()
}
