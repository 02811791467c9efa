//! What a stored model is made of.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use provost_types::{FileDigest, ModelFormat};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;

/// Beside the files of a stored model.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Begins what the digest of a model is taken of.
const DIGEST_OF: &str = "provost model 1\n";

/// A stored model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The SHA-256 of `provost model 1` and a line for each file in order of its name: its SHA-256 in hexadecimal, its bytes
    /// and its name, a space between them.
    pub digest: FileDigest,
    /// What it was called when it was imported; for people.
    pub name: String,
    /// The form of its files.
    pub format: ModelFormat,
    /// What most of its weights are stored as.
    pub dtype: String,
    /// Its files, in order of their names.
    pub files: Vec<StoredFile>,
}

/// A file of a stored model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFile {
    /// Its name within the model, `/` between folders.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its content.
    pub sha256: FileDigest,
}

impl Manifest {
    /// Reads the manifest of a stored model. Nothing in it is believed by that.
    pub(crate) fn read(place: &Path) -> Result<Self, StoreError> {
        let path = place.join(MANIFEST);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_MANIFEST_BYTES).read_to_end(&mut text));
        read.map_err(|cause| StoreError::io(&path, &cause))?;
        serde_json::from_slice(&text)
            .map_err(|cause| StoreError::Io { place: path.display().to_string(), cause: cause.to_string() })
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
    }
}

/// The digest of a model with these files, which are in order of their names.
pub(crate) fn digest_of(files: &[StoredFile]) -> FileDigest {
    let mut text = DIGEST_OF.to_owned();
    for StoredFile { path, bytes, sha256 } in files {
        let sha256 = sha256.to_string();
        let hex = sha256.split_once(':').map_or(sha256.as_str(), |(_, hex)| hex);
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{hex} {bytes} {path}");
    }
    FileDigest::from_bytes(Sha256::digest(text.as_bytes()).into())
}

/// Whether a file of a model may be called so: below the model's folder, and in one line of the digest.
pub(crate) fn is_plain(path: &str) -> bool {
    let below = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    !path.is_empty() && below && path != MANIFEST && !path.contains(['\n', '\\'])
}

/// Reads a file to its end: hands each piece to `take`, and gives length and SHA-256.
pub(crate) fn hashed(
    reader: &mut impl Read,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(u64, FileDigest)> {
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    let (mut bytes, mut hasher) = (0_u64, Sha256::new());
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(cause),
        };
        let piece = buffer.get(..read).unwrap_or_default();
        hasher.update(piece);
        take(piece)?;
        bytes += read as u64;
    }
    Ok((bytes, FileDigest::from_bytes(hasher.finalize().into())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_text_which_the_page_describes() {
        let (bytes, sha256) = hashed(&mut &b"abc"[..], |_| Ok(())).unwrap();
        let files = [StoredFile { path: "config.json".to_owned(), bytes, sha256 }];
        let text = "provost model 1\n\
                    ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3 config.json\n";
        assert_eq!(digest_of(&files), FileDigest::from_bytes(Sha256::digest(text).into()));
        assert_ne!(digest_of(&files), digest_of(&[]));
    }

    #[test]
    fn names_stay_below_their_folder() {
        for good in ["config.json", "1_Pooling/config.json", "model-00001-of-00002.safetensors"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../config.json", "a/../../b", MANIFEST, "a\nb"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
