//! What a stored model is made of.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use provost_types::{FileDigest, ModelFormat};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;
use super::verify::{MOST_DEPTH, MOST_ENTRIES};

/// Beside the files of a stored model.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Longest name and element type that another node sends.
const MAX_TEXT_BYTES: usize = 256;
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

    /// Reads the manifest of a model of this digest that another node sends. Its files are those of the digest then, and can lie
    /// in a folder.
    ///
    /// # Errors
    /// What is otherwise.
    pub(crate) fn of_other(digest: FileDigest, text: &[u8]) -> Result<Self, String> {
        if text.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(format!("its manifest has more than {MAX_MANIFEST_BYTES} bytes"));
        }
        let manifest: Self =
            serde_json::from_slice(text).map_err(|cause| format!("its manifest cannot be read: {cause}"))?;
        if manifest.digest != digest || digest_of(&manifest.files) != digest {
            return Err(format!("its manifest is not that of {digest}"));
        }
        // The manifest is a file of the folder, too.
        if manifest.files.is_empty() || manifest.files.len() + 1 >= MOST_ENTRIES {
            return Err(format!("it has {} files", manifest.files.len()));
        }
        if let Some(bad) = manifest.files.iter().find(|file| !is_below(&file.path)) {
            return Err(format!("{:?} is no name of a file in a model", bad.path));
        }
        if !manifest.files.is_sorted_by(|a, b| a.path < b.path) {
            return Err("its files are not in order of their names".to_owned());
        }
        let sum = manifest.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes));
        let is_text = |text: &str| text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control);
        if sum.is_none() || !is_text(&manifest.name) || !is_text(&manifest.dtype) {
            return Err("its manifest says what no model is".to_owned());
        }
        Ok(manifest)
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

/// The same of a name that another node sends: each folder is one, and there are not too many.
fn is_below(path: &str) -> bool {
    let is_name = |part: &str| !matches!(part, "" | "." | "..");
    is_plain(path) && path.split('/').all(is_name) && path.matches('/').count() <= MOST_DEPTH
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

    /// The manifest of an empty file of each name.
    fn of_names(names: &[&str]) -> Manifest {
        let (bytes, sha256) = hashed(&mut &b""[..], |_| Ok(())).unwrap();
        let files: Vec<StoredFile> =
            names.iter().map(|name| StoredFile { path: (*name).to_owned(), bytes, sha256 }).collect();
        let (name, dtype) = ("m".to_owned(), "f32".to_owned());
        Manifest { digest: digest_of(&files), name, format: ModelFormat::Safetensors, dtype, files }
    }

    fn read(manifest: &Manifest) -> Result<Manifest, String> {
        Manifest::of_other(manifest.digest, &serde_json::to_vec(manifest).unwrap())
    }

    #[test]
    fn a_manifest_of_another_node_is_that_of_the_digest_and_of_files_in_a_folder() {
        let good = of_names(&["1_Pooling/config.json", "config.json"]);
        assert_eq!(read(&good).unwrap(), good);
        let nine_deep = "a/".repeat(9) + "a";
        for names in [
            &["../config.json"][..],
            &["/etc/passwd"],
            &["a//b"],
            &["a/./b"],
            &[MANIFEST],
            &[nine_deep.as_str()],
            &["b", "a"],
            &["a", "a"],
            &[],
        ] {
            assert!(read(&of_names(names)).is_err(), "{names:?}");
        }
        let other = FileDigest::from_bytes([7; 32]);
        assert!(Manifest::of_other(other, &serde_json::to_vec(&good).unwrap()).unwrap_err().contains("not that of"));
        let mut longer = good.clone();
        longer.files[0].bytes = 1;
        assert!(read(&longer).unwrap_err().contains("not that of"));
        let mut called = good.clone();
        called.name = "a\u{1b}[2J".to_owned();
        assert!(read(&called).is_err());
        assert!(Manifest::of_other(good.digest, b"{").unwrap_err().contains("cannot be read"));
        let padding = vec![b' '; usize::try_from(MAX_MANIFEST_BYTES).unwrap() + 1];
        assert!(Manifest::of_other(good.digest, &padding).unwrap_err().contains("more than"));
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
