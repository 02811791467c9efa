//! Packages and their components as files of the node, each under the digest of the package.
//!
//! Invariants: a file is there whole or not at all, and is checked each time that it is read; what no plugin names is
//! removed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use provost_package::{MAX_PACKAGE_BYTES, Package};
use provost_types::FileDigest;

const PACKAGE: &str = "package";
const COMPONENT: &str = "wasm";
const UNFINISHED: &str = "tmp";
/// What was not finished for so long never will be.
const UNFINISHED_LIFE: Duration = Duration::from_secs(600);

/// The folder of packages.
#[derive(Clone, Debug)]
pub(crate) struct PackageFiles {
    dir: PathBuf,
}

impl PackageFiles {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self, digest: FileDigest, kind: &str) -> PathBuf {
        self.dir.join(format!("{}.{kind}", hex::encode(digest.as_bytes())))
    }

    /// The package, if it is here and is what it was. Waits for the disk.
    pub(crate) fn package(&self, digest: FileDigest) -> Option<Package> {
        let file = File::open(self.path(digest, PACKAGE)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_PACKAGE_BYTES + 1).read_to_end(&mut bytes).ok()?;
        let package = Package::read(Bytes::from(bytes)).and_then(|p| p.check_digest(digest).map(|()| p));
        package
            .inspect_err(|cause| tracing::warn!(%digest, %cause, "a kept package was changed; it is fetched again"))
            .ok()
    }

    pub(crate) fn keep_package(&self, package: &Package) -> io::Result<()> {
        self.write(&self.path(package.digest(), PACKAGE), package.bytes())
    }

    /// Where the component of a package is, which has these bytes.
    pub(crate) fn keep_component(&self, package: FileDigest, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(package, COMPONENT);
        let is_there = fs::metadata(&path).is_ok_and(|found| found.len() == content.len() as u64)
            && fs::read(&path).is_ok_and(|found| found == content);
        if !is_there {
            self.write(&path, content)?;
        }
        Ok(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.dir)?;
        let (process, n) = (std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
        let temporary = self.dir.join(format!("{process}-{n}.{UNFINISHED}"));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        let written = written.and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes what is of no package of these. What cannot be removed now is tried again with the next change.
    pub(crate) fn prune(&self, wanted: &BTreeSet<FileDigest>) {
        let wanted: BTreeSet<String> = wanted.iter().map(|digest| hex::encode(digest.as_bytes())).collect();
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let (stem, kind) = (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|s| s.to_str()));
            let is_old = || {
                let changed = fs::metadata(&path).and_then(|found| found.modified());
                changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > UNFINISHED_LIFE))
            };
            let goes = match kind {
                Some(PACKAGE | COMPONENT) => stem.is_none_or(|stem| !wanted.contains(stem)),
                Some(UNFINISHED) => is_old(),
                _ => false,
            };
            if goes {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_no_plugin_names_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = PackageFiles::new(dir.path());
        let (kept, gone) = (FileDigest::from_bytes([1; 32]), FileDigest::from_bytes([2; 32]));
        let paths = [kept, gone].map(|digest| files.keep_component(digest, b"x").unwrap());
        fs::write(dir.path().join("other.txt"), b"").unwrap();
        files.prune(&BTreeSet::from([kept]));
        assert_eq!(paths.map(|path| path.exists()), [true, false]);
        assert!(dir.path().join("other.txt").exists());
    }
}
