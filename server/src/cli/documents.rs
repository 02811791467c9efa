//! Files of resources: `-f PATH` names a file, a directory (its `.yaml`, `.yml` and `.json` files,
//! sub-directories too, in order of name) or `-` for standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// Most files of one apply.
const MAX_FILES: usize = 10_000;
/// Bytes of all of them: what the control plane takes at once. A file that is larger is not read to its end.
const MAX_TOTAL_BYTES: u64 = 8 << 20;

/// Reads them: path as given and text.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let (mut files, mut left) = (Vec::new(), MAX_TOTAL_BYTES);
    for path in paths {
        if path.as_os_str() == "-" {
            let text = whole(io::stdin(), &mut left).map_err(|cause| unreadable("standard input", &cause))?;
            files.push(("-".to_owned(), text.ok_or_else(|| too_large("standard input"))?));
        } else {
            collect(path, &mut files, &mut left, true)?;
        }
    }
    if files.is_empty() {
        return Err(Failure::new(
            "PV-CLI-NO-FILES",
            "there is no .yaml, .yml or .json file to read",
            "name a file, or a directory that holds some",
        )
        .into());
    }
    Ok(files)
}

fn unreadable(what: impl std::fmt::Display, cause: &io::Error) -> Failure {
    let hint = "check the path and its permissions; resources are YAML or JSON, in UTF-8";
    Failure::new("PV-CLI-FILE", format!("{what} cannot be read: {cause}"), hint)
}

/// `path`: the one with which the bound is passed.
fn too_large(path: impl std::fmt::Display) -> Failure {
    let text = format!("the files up to {path} have more than {MAX_TOTAL_BYTES} bytes together");
    Failure::new("PV-DOC-SIZE", text, "apply them in parts")
}

/// The whole text, unless it is longer than what is left of the bound.
fn whole(source: impl Read, left: &mut u64) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    source.take(*left + 1).read_to_end(&mut bytes)?;
    let Some(rest) = left.checked_sub(bytes.len() as u64) else { return Ok(None) };
    *left = rest;
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
}

fn collect(path: &Path, files: &mut Vec<(String, String)>, left: &mut u64, named: bool) -> anyhow::Result<()> {
    let unreadable = |cause: io::Error| unreadable(path.display(), &cause);
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
            .map_err(unreadable)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        entries.sort();
        for entry in entries {
            collect(&entry, files, left, false)?;
        }
        return Ok(());
    }
    let is_document = path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
    if !named && !is_document {
        return Ok(());
    }
    if files.len() >= MAX_FILES {
        return Err(Failure::new(
            "PV-CLI-FILES",
            format!("more than {MAX_FILES} files in one apply"),
            "apply them in parts",
        )
        .into());
    }
    let text = File::open(path).and_then(|file| whole(file, left)).map_err(unreadable)?;
    files.push((path.display().to_string(), text.ok_or_else(|| too_large(path.display()))?));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_text_and_together_no_more_than_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let half = "x".repeat(usize::try_from(MAX_TOTAL_BYTES).unwrap() / 2);
        std::fs::write(path("a.yaml"), &half).unwrap();
        std::fs::write(path("b.yaml"), &half).unwrap();
        std::fs::write(path("c.txt"), "not asked for").unwrap();
        let files = read(&[dir.path().to_owned()]).unwrap();
        assert_eq!(files.iter().map(|(_, text)| text.len()).sum::<usize>(), half.len() * 2);
        std::fs::write(path("c.json"), "1").unwrap();
        let error = |paths: &[PathBuf]| read(paths).unwrap_err().to_string();
        let said = error(&[dir.path().to_owned()]);
        assert!(said.starts_with("PV-DOC-SIZE") && said.contains("c.json"), "{said}");
        assert_eq!(read(&[path("c.json")]).unwrap().len(), 1);
        std::fs::write(path("d.yaml"), [0xff_u8, 0xfe]).unwrap();
        let said = error(&[path("d.yaml")]);
        assert!(said.starts_with("PV-CLI-FILE") && said.contains("UTF-8"), "{said}");
        assert!(error(&[path("none.yaml")]).starts_with("PV-CLI-FILE"));
    }
}
