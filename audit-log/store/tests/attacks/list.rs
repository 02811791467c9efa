//! The list of cases is whole: each names the test that tries it, or says what it waits for.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_case_has_its_test() {
    let root = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let (mut seen, mut pending) = (BTreeSet::new(), Vec::new());
    for line in include_str!("cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (case, place) = line.split_once(" | ").unwrap_or_else(|| panic!("no ` | ` in `{line}`"));
        assert!(seen.insert(case), "`{case}` is listed twice");
        if let Some(why) = place.strip_prefix("pending: ") {
            pending.push(format!("{case} ({why})"));
            continue;
        }
        let source = fs::read_to_string(root.join(place)).unwrap_or_else(|e| panic!("{place}: {e}"));
        // A test that goes through many fields names each of them in a list.
        let last = case.rsplit(": ").next().unwrap_or(case);
        let named = [case, last].iter().any(|name| source.contains(&format!("\"{name}\"")));
        assert!(named, "{place} does not try `{case}`: write its test, or list it as `pending: WHY`");
    }
    assert!(seen.len() > 100, "{} cases are listed", seen.len());
    println!("{} cases, {} of them pending:\n{}", seen.len(), pending.len(), pending.join("\n"));
}
