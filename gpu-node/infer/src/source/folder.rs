//! Which models a directory has, by the names of what lies in it.

use std::path::{Path, PathBuf};

use super::{CONFIG, MAX_NAME_BYTES};
use crate::error::{FileContext, InferError};

/// Lists the models of a directory: name and path, in order of name.
///
/// # Errors
/// When the directory cannot be read.
pub fn discover(directory: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_gguf = path.extension().is_some_and(|ext| ext == "gguf");
        let stem = if is_gguf { path.file_stem() } else { path.file_name() };
        let Some(name) = stem.and_then(|stem| stem.to_str()) else {
            continue;
        };
        let is_model = (is_gguf && path.is_file()) || (path.is_dir() && looks_like_a_model(&path));
        if !is_model || name.starts_with('.') {
            continue;
        }
        if !is_plain(name) {
            tracing::warn!(name, "skipped: a model's name has letters, digits, `.`, `_` and `-`");
            continue;
        }
        found.push((name.to_owned(), path));
    }
    found.sort();
    // A directory and a file may claim one name; the directory sorts first and wins.
    found.dedup_by(|later, earlier| later.0 == earlier.0);
    Ok(found)
}

fn looks_like_a_model(directory: &Path) -> bool {
    directory.join(CONFIG).is_file() || !gguf_files(directory).is_empty()
}

fn gguf_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "gguf"))
        .collect()
}

pub(super) fn only_gguf_of(name: &str, directory: &Path) -> Result<PathBuf, InferError> {
    let mut files = gguf_files(directory);
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        (Some(_), false) => {
            Err(FileContext::new(name, "*.gguf").unsupported("several GGUF files in one directory; keep one"))
        }
        (None, _) => Err(FileContext::new(name, CONFIG).unreadable("no such file")),
    }
}

fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
