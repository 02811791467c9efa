//! The folder of a corpus on this node.
//!
//! Invariants: nothing outside of `corpora/TENANT/FOLDER` is opened, whatever lies in the folder and is put there
//! while it is read: each step is one name below a folder that is open, and no link is followed. Only files are read.
//! Left out: how the files come there.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use provost_types::Name;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat},
    io::Errno,
};

/// Where corpora lie below the data directory.
pub(super) const CORPORA: &str = "corpora";
/// Documents of one corpus.
pub(super) const MAX_DOCUMENTS: usize = 20_000;
/// Folders inside of each other.
const MAX_DEPTH: usize = 16;
/// Entries of all folders, documents or not.
const MAX_ENTRIES: usize = 100_000;
/// What was not looked at that is named one by one.
const MAX_LEFT_OUT: usize = 100;

/// A folder of one tenant.
#[derive(Clone)]
pub(super) struct Folder {
    corpora: PathBuf,
    tenant: Name,
    name: Name,
}

/// A file as its folder shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// From the corpus' folder on, with `/`.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// When it was changed last, nanoseconds since the Unix epoch.
    pub(super) modified_ns: i64,
}

/// What a folder holds, in a fixed order.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) found: Vec<Found>,
    /// What was not looked at, and why: the first ones.
    pub(super) left_out: Vec<String>,
    /// Entries that were seen.
    entries: usize,
}

impl Listing {
    fn leave_out(&mut self, reason: impl FnOnce() -> String) {
        if self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(reason());
        }
    }
}

impl Folder {
    pub(super) fn new(data_dir: &Path, tenant: &Name, name: &Name) -> Self {
        Self { corpora: data_dir.join(CORPORA), tenant: tenant.clone(), name: name.clone() }
    }

    /// Where it is, for people.
    pub(super) fn shown(&self) -> String {
        format!("{CORPORA}/{}/{}", self.tenant, self.name)
    }

    /// The files of whose paths `is_wanted` says so. Blocks.
    pub(super) fn list(&self, is_wanted: &dyn Fn(&str) -> bool) -> io::Result<Listing> {
        let root = self.open()?;
        let mut listing = Listing::default();
        walk(root.as_fd(), "", 0, is_wanted, &mut listing)?;
        Ok(listing)
    }

    /// A file's bytes, at most so many. Blocks.
    pub(super) fn read(&self, path: &str, max_bytes: u64) -> io::Result<Vec<u8>> {
        let (folders, file) = path.rsplit_once('/').map_or((None, path), |(folders, file)| (Some(folders), file));
        let mut folder = self.open()?;
        for name in folders.into_iter().flat_map(|folders| folders.split('/')) {
            folder = enter(folder.as_fd(), name)?;
        }
        // What is no file could keep whoever opens it waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(folder, checked(file)?, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            return Err(io::Error::other(format!("it has more than {max_bytes} bytes")));
        }
        Ok(bytes)
    }

    /// The operator may have put `corpora` elsewhere by a link; below it there are none.
    fn open(&self) -> io::Result<OwnedFd> {
        let corpora = open(&self.corpora, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let tenant = enter(corpora.as_fd(), self.tenant.as_str())?;
        enter(tenant.as_fd(), self.name.as_str())
    }
}

/// A name of one step.
fn checked(name: &str) -> io::Result<&str> {
    match name {
        "" | "." | ".." => Err(io::Error::other("it is no path in the folder")),
        name if name.contains(['/', '\0']) => Err(io::Error::other("it is no path in the folder")),
        name => Ok(name),
    }
}

fn enter(folder: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, checked(name)?, flags, Mode::empty())?)
}

/// Adds what lies in an open folder and below.
fn walk(
    folder: BorrowedFd<'_>,
    prefix: &str,
    depth: usize,
    is_wanted: &dyn Fn(&str) -> bool,
    listing: &mut Listing,
) -> io::Result<()> {
    for name in names(folder, prefix, listing)? {
        let path = format!("{prefix}{name}");
        let stat = match statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went since the folder was read.
            Err(Errno::NOENT) => continue,
            Err(cause) => return Err(cause.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth >= MAX_DEPTH => {
                listing.leave_out(|| format!("`{path}/` lies deeper than {MAX_DEPTH} folders"));
            }
            FileType::Directory => match enter(folder, &name) {
                Ok(inner) => walk(inner.as_fd(), &format!("{path}/"), depth + 1, is_wanted, listing)?,
                Err(cause) => listing.leave_out(|| format!("`{path}/` cannot be opened: {cause}")),
            },
            FileType::RegularFile if !is_wanted(&path) => {}
            FileType::RegularFile if listing.found.len() >= MAX_DOCUMENTS => {
                let rest = || format!("`{path}` and what comes after: there are {MAX_DOCUMENTS} documents");
                listing.leave_out(rest);
                return Ok(());
            }
            FileType::RegularFile => {
                let modified_ns = i128::from(stat.st_mtime) * 1_000_000_000 + stat.st_mtime_nsec as i128;
                listing.found.push(Found {
                    path,
                    bytes: u64::try_from(stat.st_size).unwrap_or_default(),
                    modified_ns: i64::try_from(modified_ns).unwrap_or(i64::MAX),
                });
            }
            FileType::Symlink if is_wanted(&path) => {
                listing.leave_out(|| format!("`{path}` is a link, which is not followed"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The names in a folder, in order; hidden ones are not looked at.
fn names(folder: BorrowedFd<'_>, prefix: &str, listing: &mut Listing) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        if listing.entries >= MAX_ENTRIES {
            listing.leave_out(|| format!("what is left in `{prefix}`: there are {MAX_ENTRIES} entries"));
            break;
        }
        listing.entries += 1;
        match entry.file_name().to_str() {
            Ok(name) => names.push(name.to_owned()),
            Err(_) => listing.leave_out(|| format!("a name in `{prefix}` is not UTF-8")),
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn folder(data: &Path) -> Folder {
        Folder::new(data, &Name::new("acme").unwrap(), &Name::new("docs").unwrap())
    }

    #[test]
    fn files_are_listed_in_order_and_read() {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("corpora/acme/docs");
        fs::create_dir_all(root.join("b/c")).unwrap();
        for (path, text) in [("z.md", "z"), ("a.md", "alpha"), ("b/c/d.md", "d"), ("x.bin", "x"), (".hidden.md", "h")] {
            fs::write(root.join(path), text).unwrap();
        }
        let folder = folder(data.path());
        let listing = folder.list(&|path| path.ends_with(".md")).unwrap();
        let found: Vec<(&str, u64)> = listing.found.iter().map(|f| (f.path.as_str(), f.bytes)).collect();
        assert_eq!(found, [("a.md", 5), ("b/c/d.md", 1), ("z.md", 1)]);
        assert!(listing.left_out.is_empty() && listing.found.iter().all(|f| f.modified_ns > 0), "{listing:?}");
        assert_eq!(folder.read("b/c/d.md", 1).unwrap(), b"d");
        assert!(folder.read("a.md", 4).unwrap_err().to_string().contains("4 bytes"));
        for path in ["../docs/a.md", "b/../a.md", "/a.md", "b//c/d.md", "", "b", "b/./c/d.md", "a.md/x", "a\0.md"] {
            assert!(folder.read(path, 10).is_err(), "{path:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_not_named_without_end() {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("corpora/acme/docs");
        fs::create_dir_all(&root).unwrap();
        for n in 0..2 * MAX_LEFT_OUT {
            symlink("nowhere.md", root.join(format!("{n}.md"))).unwrap();
        }
        fs::write(root.join("z.md"), "z").unwrap();
        let listing = folder(data.path()).list(&|_| true).unwrap();
        assert_eq!((listing.left_out.len(), listing.found.len()), (MAX_LEFT_OUT, 1));
    }

    #[test]
    fn no_link_leads_out() {
        let data = tempfile::tempdir().unwrap();
        let acme = data.path().join("corpora/acme");
        fs::create_dir_all(acme.join("docs")).unwrap();
        fs::create_dir_all(data.path().join("corpora/other/docs")).unwrap();
        fs::write(data.path().join("corpora/other/docs/secret.md"), "secret").unwrap();
        symlink("../../other/docs/secret.md", acme.join("docs/file.md")).unwrap();
        symlink("../../other/docs", acme.join("docs/folder")).unwrap();
        let listing = folder(data.path()).list(&|_| true).unwrap();
        assert!(listing.found.is_empty(), "{listing:?}");
        assert_eq!(listing.left_out.len(), 2, "{listing:?}");
        for path in ["file.md", "folder/secret.md"] {
            assert!(folder(data.path()).read(path, 10).is_err(), "{path}");
        }
        // Nor may the corpus itself be one.
        fs::rename(acme.join("docs"), acme.join("moved")).unwrap();
        symlink("../other/docs", acme.join("docs")).unwrap();
        assert!(folder(data.path()).list(&|_| true).is_err());
    }
}
