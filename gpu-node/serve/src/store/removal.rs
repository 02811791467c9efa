//! Taking a model out of the store.
//!
//! One rename takes its name away; then its files go. After a crash between the two they are in `staging`, and go with the next
//! import.

use std::fs;
use std::io;

use provost_types::FileDigest;

use super::import::{make_dir, sync_dir};
use super::{ModelStore, StoreError, folder_of};

impl ModelStore {
    /// Removes a model, unless it is not here or `may_go` says no once nothing is imported any more. Says whether it was removed.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while something is imported; else when it cannot be moved. Then it is as it was.
    pub(crate) fn remove(&self, digest: FileDigest, may_go: impl FnOnce() -> bool) -> Result<bool, StoreError> {
        let place = self.place_of(digest);
        if !place.exists() {
            return Ok(false);
        }
        let _lock = self.take_lock()?;
        if !may_go() {
            return Ok(false);
        }
        make_dir(&self.staging())?;
        let going = self.staging().join(folder_of(digest));
        match fs::remove_dir_all(&going) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(&going, &cause)),
            _ => {}
        }
        let moved = fs::rename(&place, &going).and_then(|()| sync_dir(&self.blobs()));
        moved.map_err(|cause| StoreError::io(&place, &cause))?;
        // It is no model any more; what stays of it now goes with the next import.
        if let Err(cause) = fs::remove_dir_all(&going) {
            tracing::warn!(%cause, %digest, "files of a model that was removed are still there");
        }
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn what_is_removed_is_gone_and_what_may_not_go_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::of_data_dir(dir.path());
        let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures/tiny-chat");
        let digest = store.import(&tiny, "tiny").unwrap().manifest.digest;
        assert!(!store.remove(FileDigest::from_bytes([1; 32]), || true).unwrap());
        assert!(!store.remove(digest, || false).unwrap());
        assert!(store.has(digest));
        let lock = store.take_lock().unwrap();
        assert!(matches!(store.remove(digest, || true).unwrap_err(), StoreError::Busy { .. }));
        drop(lock);
        // As a crash leaves it in the middle.
        fs::create_dir_all(store.staging().join(folder_of(digest)).join("rest")).unwrap();
        assert!(store.remove(digest, || true).unwrap());
        assert!(!store.has(digest) && store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(store.staging()).unwrap().count(), 0);
        assert!(!store.import(&tiny, "tiny").unwrap().was_there);
    }
}
