//! Files of a project: read up to a bound, and written whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use crate::failure::Failure;

fn failed(path: &Path, what: &str, cause: impl std::fmt::Display) -> Failure {
    let text = format!("{} cannot be {what}: {cause}", path.display());
    Failure::new("PV-PLUGIN-FILE", text, "check the path, its permissions and the space that is left")
}

/// A file of at most so many bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One more than may be, so that a longer file is noticed and not cut off.
    let file = File::open(path).map_err(|cause| failed(path, "read", cause))?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|cause| failed(path, "read", cause))?;
    if bytes.len() as u64 > most {
        return Err(failed(path, "read", format_args!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// The same as text.
pub(super) fn read_text(path: &Path, most: u64) -> Result<String, Failure> {
    String::from_utf8(read(path, most)?).map_err(|_| failed(path, "read", "it is not text in UTF-8"))
}

/// Writes a file aside and renames it: a file under its own name is whole.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = Path::new(&aside);
    let written = fs::write(aside, bytes).and_then(|()| fs::rename(aside, path));
    if written.is_err() {
        let _ = fs::remove_file(aside);
    }
    written.map_err(|cause| failed(path, "written", cause))
}

/// Writes a new file, with the folders above it. One that is there is left alone, and that is an error.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let made = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        io::Write::write_all(&mut File::create_new(path)?, bytes)
    };
    made().map_err(|cause| failed(path, "written", cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_not_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(read(&path, 4).unwrap_err().message.contains("larger than 4 bytes"));
        assert_eq!(read(&dir.path().join("b"), 4).unwrap_err().code, "PV-PLUGIN-FILE");
        assert!(create(&path, b"").is_err(), "a file that is there stays");
        create(&dir.path().join("c/d"), b"x").unwrap();
        assert_eq!(read_text(&dir.path().join("c/d"), 9).unwrap(), "x");
        write(&path, &[0xff]).unwrap();
        assert!(read_text(&path, 9).is_err());
    }
}
