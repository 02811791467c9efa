//! A model that another node sends, until it is whole.
//!
//! Its files lie in `arriving/DIGEST`, each as far as it came. What is there after a crash is gone on with: a file is hashed when
//! it has its length, and goes if it is not what the digest says. One rename gives the model its name, as after an import.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use provost_types::FileDigest;

use super::import::{is_full, make_dir, sync_dir};
use super::manifest::{MANIFEST, Manifest, StoredFile, hashed};
use super::{ModelStore, StoreError, folder_of};

/// Ends the name of what is being removed.
const GOING: &str = "going";

/// A model that arrives.
#[derive(Debug)]
pub(crate) struct Arriving {
    store: ModelStore,
    place: PathBuf,
    manifest: Manifest,
}

/// A file that arrives, open.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    path: PathBuf,
}

impl ModelStore {
    /// Begins with a model, or goes on with it. Of the manifest [`Manifest::of_other`] was believed.
    pub(crate) fn arrive(&self, manifest: Manifest) -> Result<Arriving, StoreError> {
        let place = self.arriving().join(folder_of(manifest.digest));
        make_dir(&place)?;
        Ok(Arriving { store: self.clone(), place, manifest })
    }

    /// Removes what came of models other than these. Each loses its name first: one that is given its own just then is whole or
    /// is not there.
    pub(crate) fn forget_arrivals(&self, except: &BTreeSet<FileDigest>) {
        let kept: BTreeSet<String> = except.iter().map(|digest| folder_of(*digest)).collect();
        let Ok(entries) = fs::read_dir(self.arriving()) else { return };
        for entry in entries.flatten().filter(|entry| !kept.contains(&*entry.file_name().to_string_lossy())) {
            if let Err(cause) = let_go(&entry.path()) {
                tracing::warn!(%cause, place = %entry.path().display(), "the rest of a copy stays");
            }
        }
    }

    /// Bytes that are free where the store is, for this process.
    pub(crate) fn free_bytes(&self) -> Result<u64, StoreError> {
        make_dir(&self.root)?;
        let facts =
            rustix::fs::statvfs(self.root.as_path()).map_err(|cause| StoreError::io(&self.root, &cause.into()))?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

impl Arriving {
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes that are here.
    pub(crate) fn bytes(&self) -> u64 {
        let length = |file: &StoredFile| {
            let facts = fs::symlink_metadata(self.place.join(&file.path)).ok();
            facts.map_or(0, |facts| facts.len().min(file.bytes))
        };
        self.manifest.files.iter().map(length).fold(0, u64::saturating_add)
    }

    /// Opens a file, and says from which byte on it is missing.
    pub(crate) fn open(&self, file: &StoredFile) -> Result<(Part, u64), StoreError> {
        let path = self.place.join(&file.path);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let opened = opened.and_then(|opened| Ok((opened.metadata()?.len(), opened)));
        let (length, opened) = opened.map_err(|cause| StoreError::io(&path, &cause))?;
        let part = Part { file: opened, path };
        if length <= file.bytes {
            return Ok((part, length));
        }
        part.file.set_len(0).map_err(|cause| StoreError::io(&part.path, &cause))?;
        Ok((part, 0))
    }

    /// Makes a file durable, and says whether it is what the digest says. One that is not is removed.
    pub(crate) fn is_right(&self, part: &Part, file: &StoredFile) -> Result<bool, StoreError> {
        let io = |cause: io::Error| StoreError::io(&part.path, &cause);
        part.file.sync_all().map_err(io)?;
        let mut reader = File::open(&part.path).map_err(io)?;
        let is_right = hashed(&mut reader, |_| Ok(())).map_err(io)? == (file.bytes, file.sha256);
        if !is_right {
            fs::remove_file(&part.path).map_err(io)?;
        }
        Ok(is_right)
    }

    /// Gives the model its name: every file was found to be right. After a crash before it the rest is there and right.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while something is imported: it can be tried again.
    pub(crate) fn finish(&self) -> Result<(), StoreError> {
        let io = |cause: io::Error| StoreError::io(&self.place, &cause);
        let text = serde_json::to_vec_pretty(&self.manifest).map_err(|cause| io(cause.into()))?;
        let write = || {
            let mut file = File::create(self.place.join(MANIFEST))?;
            file.write_all(&text)?;
            file.sync_all()?;
            for folder in self.folders() {
                sync_dir(&folder)?;
            }
            sync_dir(&self.place)
        };
        write().map_err(io)?;
        make_dir(&self.store.blobs())?;
        let _lock = self.store.take_lock()?;
        let to = self.store.place_of(self.manifest.digest);
        if to.exists() {
            // It was imported meanwhile.
            return fs::remove_dir_all(&self.place).map_err(io);
        }
        // It may have been declared no more meanwhile, and once more: then another copy of it has begun in this place.
        if self.bytes() != self.manifest.bytes() {
            return Err(io(io::Error::other("its files are not there any more")));
        }
        fs::rename(&self.place, &to).and_then(|()| self.store.sync_folders()).map_err(io)?;
        tracing::info!(digest = %self.manifest.digest, "a model was copied");
        Ok(())
    }

    /// The folders within the model.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for file in &self.manifest.files {
            let mut path = self.place.join(&file.path);
            while path.pop() && path != self.place {
                found.insert(path.clone());
            }
        }
        found
    }
}

/// Removes what came of a model. After a crash it has another name, and goes the next time.
fn let_go(place: &Path) -> io::Result<()> {
    let remove = |place: &Path| match fs::remove_dir_all(place) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    };
    if place.extension().is_some_and(|end| end == GOING) {
        return remove(place);
    }
    let going = place.with_extension(GOING);
    remove(&going)?;
    fs::rename(place, &going)?;
    remove(&going)
}

impl Part {
    /// Writes a piece.
    pub(crate) fn write_at(&self, piece: &[u8], offset: u64) -> Result<(), StoreError> {
        self.file.write_all_at(piece, offset).map_err(|cause| match is_full(&cause) {
            true => StoreError::Full { bytes: piece.len() as u64, place: self.path.display().to_string() },
            false => StoreError::io(&self.path, &cause),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::verify::check_files;

    fn tiny() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures/tiny-chat")
    }

    /// A store with a model, and one without.
    fn stores(dir: &Path) -> (ModelStore, ModelStore, Manifest) {
        let (from, to) = (ModelStore::new(dir.join("from")), ModelStore::new(dir.join("to")));
        let manifest = from.import(&tiny(), "tiny").unwrap().manifest;
        (from, to, manifest)
    }

    fn content(from: &ModelStore, manifest: &Manifest, file: &StoredFile) -> Vec<u8> {
        fs::read(from.place_of(manifest.digest).join(&file.path)).unwrap()
    }

    #[test]
    fn what_arrives_is_gone_on_with_and_is_a_model_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, manifest) = stores(dir.path());
        let half = |file: &StoredFile| file.bytes / 2;
        let first = to.arrive(manifest.clone()).unwrap();
        for file in &manifest.files {
            let (part, at) = first.open(file).unwrap();
            assert_eq!(at, 0);
            let piece = content(&from, &manifest, file);
            part.write_at(&piece[..usize::try_from(half(file)).unwrap()], 0).unwrap();
        }
        assert_eq!(first.bytes(), manifest.files.iter().map(half).sum::<u64>());
        drop(first);
        assert!(!to.has(manifest.digest) && to.list().unwrap().is_empty());
        // As after a start.
        let again = to.arrive(manifest.clone()).unwrap();
        for file in &manifest.files {
            let (part, at) = again.open(file).unwrap();
            assert_eq!(at, half(file), "{}", file.path);
            let rest = content(&from, &manifest, file);
            part.write_at(&rest[usize::try_from(at).unwrap()..], at).unwrap();
            assert!(again.is_right(&part, file).unwrap());
        }
        assert_eq!(again.bytes(), manifest.bytes());
        let lock = to.take_lock().unwrap();
        assert!(matches!(again.finish().unwrap_err(), StoreError::Busy { .. }));
        drop(lock);
        again.finish().unwrap();
        check_files(&to.place_of(manifest.digest), manifest.digest).unwrap();
        assert_eq!(to.list().unwrap(), [manifest]);
        assert_eq!(fs::read_dir(to.arriving()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_otherwise_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, manifest) = stores(dir.path());
        let arriving = to.arrive(manifest.clone()).unwrap();
        let file = &manifest.files[0];
        let mut bytes = content(&from, &manifest, file);
        bytes[0] ^= 1;
        let (part, _) = arriving.open(file).unwrap();
        part.write_at(&bytes, 0).unwrap();
        assert!(!arriving.is_right(&part, file).unwrap());
        assert_eq!(arriving.open(file).unwrap().1, 0);
        // One that is longer than it may be begins anew.
        let (part, _) = arriving.open(file).unwrap();
        part.write_at(&bytes, 1).unwrap();
        assert_eq!(arriving.open(file).unwrap().1, 0);
    }

    #[test]
    fn what_lost_files_on_the_way_gets_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let (_, to, manifest) = stores(dir.path());
        let old = to.arrive(manifest.clone()).unwrap();
        // Forgotten, and begun once more, before the old one comes to its end.
        to.forget_arrivals(&BTreeSet::new());
        assert!(old.finish().is_err());
        to.arrive(manifest.clone()).unwrap();
        assert!(old.finish().is_err());
        assert!(!to.has(manifest.digest));
    }

    #[test]
    fn what_nobody_wants_any_more_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (_, to, manifest) = stores(dir.path());
        to.arrive(manifest.clone()).unwrap();
        to.forget_arrivals(&BTreeSet::from([manifest.digest]));
        assert_eq!(fs::read_dir(to.arriving()).unwrap().count(), 1);
        to.forget_arrivals(&BTreeSet::new());
        assert_eq!(fs::read_dir(to.arriving()).unwrap().count(), 0);
        // As a crash leaves it while it goes.
        let going = to.arriving().join(folder_of(manifest.digest)).with_extension(GOING);
        fs::create_dir_all(going.join("rest")).unwrap();
        to.arrive(manifest.clone()).unwrap();
        to.forget_arrivals(&BTreeSet::from([manifest.digest]));
        assert!(!going.exists());
        fs::create_dir_all(going.join("rest")).unwrap();
        to.forget_arrivals(&BTreeSet::new());
        assert_eq!(fs::read_dir(to.arriving()).unwrap().count(), 0);
        assert!(to.free_bytes().unwrap() > 0);
    }
}
