//! The book of `docs/`: every page is in its table of contents, and every link leads to something.
//!
//! `docs/SUMMARY.md` lists the pages, as mdBook reads it; pages of error codes and decisions have tables of their own.
//! Links are checked in every page of the repository, with the heading that they name where they name one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Folders of `docs` whose pages are in a table of their own (`README.md` there) and not in the book's.
const OWN_TABLE: &[&str] = &["errors/", "decisions/"];

/// Folders without pages of ours; names that begin with a dot are left out too.
const SKIPPED: &[&str] = &["target", "node_modules", "out", "vendor"];

/// Pages whose claims each name the test that shows them.
const CLAIMS: &[&str] = &["docs/security-model.md", "docs/compliance.md", "docs/slo.md"];

/// A template's pages are for projects that are made of it.
const TEMPLATES: &[&str] = &["plugins/template/"];

fn root() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_path_buf()
}

/// Every Markdown file below `dir`, as its path from `root` with `/`, and its text.
fn pages(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            pages(root, &path, found);
        } else if kind.is_file() && name.ends_with(".md") {
            let from_root = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            found.insert(from_root, fs::read_to_string(&path).unwrap());
        }
    }
}

fn all_pages() -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    pages(&root, &root, &mut found);
    found.retain(|path, _| !TEMPLATES.iter().any(|folder| path.starts_with(folder)));
    assert!(found.len() > 100, "only {} pages were found", found.len());
    found
}

/// The lines of a page that are no code: blocks between fences are left out.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        let shown = !in_code && !fence;
        in_code ^= fence;
        shown.then_some((at + 1, line))
    })
}

/// The targets of a line's links, `[text](target)`.
fn links(line: &str) -> Vec<&str> {
    let parts = line.split("](").skip(1);
    parts.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.trim()).collect()
}

/// What a link to a heading names: small letters, digits, `-` and `_`; blanks become `-`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')));
    headings.map(anchor).collect()
}

/// `docs/a.md` and `../b/c.md` as `b/c.md`; `None` where it leaves the repository.
fn resolve(page: &str, target: &str) -> Option<String> {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let mut parts: Vec<String> = Vec::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => drop(parts.pop()?),
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    Some(parts.join("/"))
}

/// Why a link of a page leads nowhere.
fn broken(pages: &BTreeMap<String, String>, page: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") || target.is_empty() {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = match file.is_empty() {
        true => page.to_owned(),
        false => match resolve(page, file) {
            Some(file) => file,
            None => return Some("leaves the repository".to_owned()),
        },
    };
    if !root().join(&file).exists() {
        return Some("there is no such file".to_owned());
    }
    let text = pages.get(&file)?;
    (!heading.is_empty() && !anchors(text).contains(heading)).then(|| "there is no such heading".to_owned())
}

#[test]
fn every_link_leads_somewhere() {
    let pages = all_pages();
    let mut wrong = Vec::new();
    for (page, text) in &pages {
        for (line, words) in prose(text) {
            for target in links(words) {
                wrong.extend(broken(&pages, page, target).map(|why| format!("{page}:{line}: {target}: {why}")));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_page_of_the_book_is_in_its_contents_once() {
    let pages = all_pages();
    let listed: Vec<String> = prose(&pages["docs/SUMMARY.md"])
        .flat_map(|(_, line)| links(line))
        .map(|target| resolve("docs/SUMMARY.md", target).expect("SUMMARY.md leaves the repository"))
        .collect();
    let once: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "SUMMARY.md lists a page twice: {listed:?}");
    let missing: Vec<&String> = pages
        .keys()
        .filter(|page| {
            page.strip_prefix("docs/").is_some_and(|rest| !OWN_TABLE.iter().any(|own| rest.starts_with(own)))
        })
        .filter(|page| *page != "docs/SUMMARY.md" && !once.contains(page))
        .collect();
    assert!(missing.is_empty(), "pages that docs/SUMMARY.md lacks: {missing:?}");
    let strange: Vec<&&String> = once.iter().filter(|page| !page.starts_with("docs/")).collect();
    assert!(strange.is_empty(), "mdBook takes pages of docs/ only: {strange:?}");
}

#[test]
fn pages_with_a_table_of_their_own_are_in_it() {
    let pages = all_pages();
    for own in OWN_TABLE {
        let table = &pages[&format!("docs/{own}README.md")];
        let missing: Vec<&String> = pages
            .keys()
            .filter(|page| page.strip_prefix(&format!("docs/{own}")).is_some_and(|name| name != "README.md"))
            .filter(|page| !table.contains(&format!("({})", page.rsplit('/').next().unwrap_or_default())))
            .collect();
        assert!(missing.is_empty(), "pages that docs/{own}README.md lacks: {missing:?}");
    }
}

/// The tests that a page names, as `` `path/of/file.rs::name_of_test` ``.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|words| words.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

#[test]
fn tests_that_pages_name_are_there() {
    let root = root();
    let (mut count, mut wrong) = (0, Vec::new());
    for page in CLAIMS {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let shown: String = prose(&text).map(|(_, line)| format!("{line}\n")).collect();
        for (file, name) in named_tests(&shown) {
            count += 1;
            let source = fs::read_to_string(root.join(file)).unwrap_or_default();
            if !source.contains(&format!("fn {name}(")) {
                wrong.push(format!("{page}: {file}::{name}"));
            }
        }
        // A row that says what is done says what shows it.
        let rows = shown.lines().skip_while(|line| !line.ends_with("| shown by |")).skip(2);
        let bare = rows.take_while(|line| line.starts_with('|')).filter(|line| named_tests(line).is_empty());
        wrong.extend(bare.map(|line| format!("{page}: no test in the row {line}")));
    }
    assert!(wrong.is_empty(), "claims that no test shows:\n{}", wrong.join("\n"));
    assert!(count > 50, "only {count} tests are named");
}

#[test]
fn links_are_read_as_they_are_written() {
    let text = "# A `b` page: c_d\nsee [x](a.md#b) and [y](../c.md)\n```sh\n[no](code.md)\n```\n[z](https://e.org)\n";
    let found: Vec<&str> = prose(text).flat_map(|(_, line)| links(line)).collect();
    assert_eq!(found, ["a.md#b", "../c.md", "https://e.org"]);
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["a-b-page-c_d"]);
    assert_eq!(resolve("docs/x/a.md", "../b.md").as_deref(), Some("docs/b.md"));
    assert_eq!(resolve("README.md", "../b.md"), None);
    let pages = BTreeMap::from([("Cargo.toml".to_owned(), "# head\n".to_owned())]);
    assert_eq!(broken(&pages, "README.md", "Cargo.toml#head"), None);
    assert_eq!(broken(&pages, "README.md", "https://example.org/x"), None);
    assert!(broken(&pages, "README.md", "Cargo.toml#tail").is_some_and(|why| why.contains("heading")));
    assert_eq!(named_tests("| `a` | `x/y.rs::z_w`, `b::c` |"), [("x/y.rs", "z_w")]);
    assert!(broken(&pages, "README.md", "no-such-file.md").is_some_and(|why| why.contains("no such file")));
}
