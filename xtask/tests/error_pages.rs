//! Every stable error code in the sources has a page in `docs/errors`, and every page has its code.
//!
//! A code is `PV-` and two or more parts of capitals and digits, such as `PV-AUDIT-LATE`. Codes of one part
//! (`PV-INTERNAL`) look like the prefix of others, so they need no page; their pages are still checked for being
//! out of date. Folders of tests are left out. Tests inside a source file cannot be told apart: what only they
//! mention goes to [`EXCEPT`].
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Codes that only tests inside source files mention.
const EXCEPT: &[&str] = &[];

/// Folders without sources that ship; names that begin with a dot are left out too.
const SKIPPED: &[&str] = &["target", "tests", "node_modules", "out"];

/// Pages that are not about one code.
const NOT_A_CODE: &[&str] = &["README"];

fn root() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_path_buf()
}

/// Adds the `*.rs` files below `dir`.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            sources(&path, found);
        } else if kind.is_file() && name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// `PV-`, a part of capitals, then any number of parts of capitals and digits. A word that ends on `-`, as
/// `PV-AUDIT-*` does, is a prefix.
fn is_code(word: &str) -> bool {
    let Some((first, others)) = word.strip_prefix("PV-").map(|rest| rest.split_once('-').unwrap_or((rest, "A"))) else {
        return false;
    };
    !first.is_empty()
        && first.bytes().all(|b| b.is_ascii_uppercase())
        && others
            .split('-')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
}

/// The codes in a text, of one part too.
fn codes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("PV-") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(rest.len());
        let word = &rest[..end];
        if is_code(word) {
            found.push(word.to_owned());
        }
    }
    found
}

/// Whether a code has two or more parts after `PV`.
fn is_whole(code: &str) -> bool {
    code.matches('-').count() >= 2
}

/// Each code of the workspace with one file that mentions it.
fn codes_of_workspace() -> BTreeMap<String, PathBuf> {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 100, "only {} source files were found", files.len());
    files.sort();
    let mut mentioned = BTreeMap::new();
    for file in files {
        for code in codes(&fs::read_to_string(&file).unwrap()) {
            mentioned.entry(code).or_insert_with(|| file.clone());
        }
    }
    mentioned
}

/// The codes that have a page.
fn pages() -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(root().join("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| !NOT_A_CODE.contains(&name.as_str()))
        .collect();
    found.sort();
    found
}

#[test]
fn every_code_has_a_page() {
    let pages = pages();
    let missing: Vec<String> = codes_of_workspace()
        .into_iter()
        .filter(|(code, _)| is_whole(code) && !EXCEPT.contains(&code.as_str()) && !pages.contains(code))
        .map(|(code, file)| format!("{code} ({})", file.display()))
        .collect();
    assert!(missing.is_empty(), "codes without docs/errors/CODE.md:\n{}", missing.join("\n"));
}

#[test]
fn every_page_has_its_code() {
    let mentioned = codes_of_workspace();
    let stale: Vec<String> = pages().into_iter().filter(|page| !mentioned.contains_key(page)).collect();
    assert!(stale.is_empty(), "pages in docs/errors whose code is gone from the sources:\n{}", stale.join("\n"));
}

#[test]
fn every_page_is_titled_and_in_the_table() {
    let folder = root().join("docs/errors");
    let table = fs::read_to_string(folder.join("README.md")).unwrap();
    let wrong: Vec<String> = pages()
        .into_iter()
        .filter(|page| {
            let text = fs::read_to_string(folder.join(format!("{page}.md"))).unwrap();
            text.lines().next() != Some(format!("# {page}").as_str()) || !table.contains(&format!("({page}.md)"))
        })
        .collect();
    assert!(wrong.is_empty(), "pages with another title, or not in docs/errors/README.md:\n{}", wrong.join("\n"));
}

#[test]
fn codes_are_found_whole() {
    let text = "\"PV-AUDIT-LATE: late\" PV-DEV-IO2, PV-INTERNAL. \\nPV-RPC-B";
    assert_eq!(codes(text), ["PV-AUDIT-LATE", "PV-DEV-IO2", "PV-INTERNAL", "PV-RPC-B"]);
    assert!(codes("`PV-AUDIT-*` \"PV-\" PV-a PV-A-b PV-HTTP_x PV-A1-B").is_empty());
    assert!(is_whole("PV-DEV-IO2") && !is_whole("PV-INTERNAL"));
}
