//! Files of resources: `-f PATH` names a file, a directory (its `.yaml`, `.yml` and `.json` files,
//! sub-directories too, in order of name) or `-` for standard input.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// Most files of one apply.
const MAX_FILES: usize = 10_000;

/// Reads them: path as given and text.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            files.push(("-".to_owned(), text));
        } else {
            collect(path, &mut files, true)?;
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

fn collect(path: &Path, files: &mut Vec<(String, String)>, named: bool) -> anyhow::Result<()> {
    let unreadable = |cause: std::io::Error| {
        Failure::new(
            "PV-CLI-FILE",
            format!("{} cannot be read: {cause}", path.display()),
            "check the path and its permissions",
        )
    };
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
            .map_err(unreadable)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        entries.sort();
        for entry in entries {
            collect(&entry, files, false)?;
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
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    files.push((path.display().to_string(), text));
    Ok(())
}
