//! The kit's sources, in this binary: a project that was started has what it is built with beside it.

use std::path::PathBuf;

/// The contract in the kit's own place, and in that of a project's copy.
const WIT_PATHS: (&str, &str) = ("\"../../data-plane/wasm/wit\"", "\"wit\"");
const MANIFEST: &str = "Cargo.toml";
/// What the kit's manifest leaves to its workspace.
const WORKSPACE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/Cargo.toml"));

macro_rules! files {
    ($($constant:ident in $folder:literal: [$($file:literal),* $(,)?];)*) => {$(
        const $constant: &[(&str, &str)] = &[$(
            ($file, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../", $folder, "/", $file))),
        )*];
    )*};
}

files! {
    KIT in "plugins/kit": [
        "Cargo.toml",
        "src/answer.rs",
        "src/bindings.rs",
        "src/call.rs",
        "src/config.rs",
        "src/export.rs",
        "src/heap.rs",
        "src/http.rs",
        "src/kv.rs",
        "src/lib.rs",
        "src/plugin.rs",
        "src/prompt.rs",
        "src/resource.rs",
        "src/schema.rs",
        "src/tool.rs",
    ];
    WIT in "data-plane/wasm/wit": ["plugin.wit"];
    LICENCE in ".": ["LICENSE"];
}

/// The kit as a crate that needs nothing beside it: paths and contents.
pub(super) fn files() -> Vec<(PathBuf, String)> {
    let kit = KIT.iter().map(|(path, content)| {
        let content = if *path == MANIFEST { own_manifest(content) } else { content.replace(WIT_PATHS.0, WIT_PATHS.1) };
        (PathBuf::from(path), content)
    });
    let wit = WIT.iter().map(|(path, content)| (PathBuf::from("wit").join(path), (*content).to_owned()));
    let licence = LICENCE.iter().map(|(path, content)| (PathBuf::from(path), (*content).to_owned()));
    kit.chain(wit).chain(licence).collect()
}

/// The manifest with what it inherits from the workspace written out.
fn own_manifest(manifest: &str) -> String {
    let workspace: toml::Table = WORKSPACE.parse().unwrap_or_default();
    let inherited = |key: &str| workspace.get("workspace")?.get("package")?.get(key);
    let lines = manifest.lines().map(|line| {
        let value = line.strip_suffix(".workspace = true").and_then(|key| Some((key, inherited(key)?)));
        value.map_or_else(|| line.to_owned(), |(key, value)| format!("{key} = {value}"))
    });
    lines.map(|line| line + "\n").collect()
}

/// Files below a folder, by their paths within it; what cargo makes there is left out.
#[cfg(test)]
pub(super) fn below(folder: &std::path::Path) -> std::collections::BTreeSet<PathBuf> {
    let (mut found, mut open) = (std::collections::BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if path.is_dir() && !name.starts_with("target") {
                open.push(path);
            } else if path.is_file() && !name.ends_with("Cargo.lock") {
                found.insert(name);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn the_binary_has_every_file_of_the_kit_and_the_contract() {
        let root = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..");
        for (folder, known) in [("plugins/kit", KIT), ("data-plane/wasm/wit", WIT)] {
            let known: BTreeSet<PathBuf> = known.iter().map(|(path, _)| PathBuf::from(path)).collect();
            assert_eq!(below(&root.join(folder)), known, "{folder}: add what is missing to `files!`");
        }
    }

    #[test]
    fn a_copy_of_the_kit_needs_nothing_beside_it() {
        let files = files();
        for (path, content) in &files {
            let manifest = path == Path::new(MANIFEST);
            assert!(!(manifest && content.contains("workspace")), "{content}");
            assert!(!content.contains("../data-plane"), "{}", path.display());
        }
        let (_, manifest) = files.iter().find(|(path, _)| path == Path::new(MANIFEST)).unwrap();
        let table: toml::Table = manifest.parse().unwrap();
        assert_eq!(table["package"]["edition"].as_str(), Some("2024"));
        assert_eq!(table["package"]["license"].as_str(), Some("Apache-2.0"));
        let (_, bindings) = files.iter().find(|(path, _)| path == Path::new("src/bindings.rs")).unwrap();
        assert!(bindings.contains("path: \"wit\""), "{bindings}");
    }
}
