//! Folders: copied, and searched.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Files below `dir` that hold `needle`.
pub fn holding(dir: &Path, needle: impl AsRef<[u8]>) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(bytes) = fs::read(&path)
                && bytes.windows(needle.as_ref().len()).any(|w| w == needle.as_ref())
            {
                found.push(path);
            }
        }
    }
    found
}
