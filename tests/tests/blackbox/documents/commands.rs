//! Commands of `provost` that pages name, in blocks that are not run and in the middle of a sentence too: each is there,
//! with its options. The man pages, which the program writes of itself, say what there is.

use std::{collections::BTreeMap, fs, process::Command};

use super::pages;
use crate::harness::{binary, root, text};

/// The man page of each command by its name, such as `provost-audit-verify`.
fn manual() -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(binary("provost")).arg("man").arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let mut manual = BTreeMap::new();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        manual.insert(name, plain(&fs::read_to_string(&path).unwrap()));
    }
    manual
}

/// A man page without marks of fonts (`\fB`) and escapes.
fn plain(roff: &str) -> String {
    let mut plain = String::new();
    let mut chars = roff.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('f') => {
                chars.next();
            }
            Some(escaped) => plain.push(escaped),
            None => {}
        }
    }
    plain
}

/// What a page says in code: spans, and the lines of blocks of commands.
fn code(page: &str) -> Vec<String> {
    let (mut prose, mut found, mut block) = (String::new(), Vec::new(), None);
    for line in page.replace("\\\n", " ").lines() {
        match (line.strip_prefix("```"), block) {
            (Some(info), None) => block = Some(matches!(info, "sh" | "console")),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => found.push(line.to_owned()),
            (None, Some(false)) => {}
            (None, None) => {
                prose.push_str(line);
                prose.push(' ');
            }
        }
    }
    found.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    found
}

/// Whether an option is in a man page, whole.
fn has_option(page: &str, name: &str) -> bool {
    let option = format!("--{name}");
    page.match_indices(&option).any(|(at, _)| {
        let next = page[at + option.len()..].chars().next();
        next.is_none_or(|c| !c.is_ascii_lowercase() && c != '-')
    })
}

/// The first word of a command that is not there. `a|b` stands for either.
fn unknown(manual: &BTreeMap<String, String>, words: &[&str]) -> Option<String> {
    let is_name = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let (mut at, mut arguments) = (vec!["provost".to_owned()], false);
    // What follows an option may be its value.
    let mut may_be_value = false;
    for word in words {
        if word.starts_with(['|', '>', '<', '&', ';', '#']) {
            break;
        }
        if word.starts_with("--") {
            for option in word.split('|') {
                let name = option.trim_start_matches('-');
                let name = &name[..name.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(name.len())];
                if !name.is_empty() && !at.iter().any(|command| has_option(&manual[command], name)) {
                    return Some(format!("{at:?} has no option --{name}"));
                }
            }
            may_be_value = true;
            continue;
        }
        let may_be_value = std::mem::take(&mut may_be_value);
        if !arguments && word.split('|').all(is_name) {
            let next: Vec<String> =
                at.iter().flat_map(|command| word.split('|').map(move |name| format!("{command}-{name}"))).collect();
            if next.iter().all(|command| manual.contains_key(command)) {
                at = next;
                continue;
            }
            let group = format!("{}-", at[0]);
            if may_be_value {
                continue;
            }
            if manual.keys().any(|command| command.starts_with(&group)) {
                return Some(format!("{at:?} has no command {word}"));
            }
        }
        arguments = true;
    }
    None
}

#[test]
fn every_command_that_a_page_names_is_there_with_its_options() {
    let manual = manual();
    let (mut count, mut wrong) = (0, Vec::new());
    for name in pages() {
        for said in code(&fs::read_to_string(root().join(&name)).unwrap()) {
            let words: Vec<&str> = said.split_whitespace().collect();
            // Behind a wrapper (`docker compose run`, `runuser`) only what is surely a command.
            for at in (0..words.len().saturating_sub(1)).filter(|at| words[*at] == "provost") {
                if at == 0 || manual.contains_key(&format!("provost-{}", words[at + 1])) {
                    count += 1;
                    wrong.extend(unknown(&manual, &words[at + 1..]).map(|why| format!("{name}: `{said}`: {why}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "commands that are not there:\n{}", wrong.join("\n"));
    assert!(count > 300, "only {count} commands were found");
}

#[test]
fn what_is_not_there_is_found() {
    assert_eq!(plain("\\fB\\-\\-rate\\fR <N>"), "--rate <N>");
    assert_eq!(code("a `b c`\n```sh\nd \\\n e\n```\n```yaml\nf\n```\n"), ["d   e", "b c"]);
    let page = |text: &str| text.to_owned();
    let manual = BTreeMap::from([
        ("provost".to_owned(), page("")),
        ("provost-audit".to_owned(), page("")),
        ("provost-audit-show".to_owned(), page("--body")),
        ("provost-audit-tail".to_owned(), page("--follow")),
    ]);
    for (words, known) in [
        ("audit show 7 --body", true),
        ("audit show|tail --follow > file --none", true),
        ("audit view 7", false),
        ("audit show --bod", false),
        ("audit tail --body", false),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(unknown(&manual, &words).is_none(), known, "{words:?}");
    }
}
