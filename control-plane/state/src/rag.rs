//! The rules that a plugin of documents keeps.
//!
//! Invariants: its folder is a name and no path, so that no document leads out of the tenant's corpora; a pattern
//! stays in the folder.
//! Left out: whether folder and model are there (the nodes, which say it to callers).

use provost_types::RagPlugin;

use crate::fields::Check;

const BASE: &str = "spec.source.rag";
/// Bytes of a model's name.
const MAX_MODEL_BYTES: usize = 128;
/// Words of a piece.
const MIN_WORDS: u32 = 20;
const MAX_WORDS: u32 = 1_000;
/// Patterns of `include`, and bytes of one.
const MAX_PATTERNS: usize = 64;
const MAX_PATTERN_BYTES: usize = 256;
/// Results of one search.
const MAX_RESULTS: u32 = 50;

pub(crate) fn check(check: &mut Check<'_>, rag: &RagPlugin) {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    let is_name = (1..=MAX_MODEL_BYTES).contains(&rag.model.len()) && rag.model.chars().all(is_plain);
    check.require(is_name, &format!("{BASE}.model"), || {
        "is not the name of a model; the `models` tool of the `inference` built-in lists what there is".into()
    });
    let words = rag.chunk.words;
    check.require((MIN_WORDS..=MAX_WORDS).contains(&words), &format!("{BASE}.chunk.words"), || {
        format!("is {words}; {MIN_WORDS} to {MAX_WORDS} words make a piece")
    });
    check.require(
        rag.chunk.overlap.is_none_or(|overlap| overlap <= words / 2),
        &format!("{BASE}.chunk.overlap"),
        || format!("is more than half of a piece of {words} words"),
    );
    check.require(rag.max_results <= MAX_RESULTS, &format!("{BASE}.maxResults"), || {
        format!("is more than {MAX_RESULTS}")
    });
    let field = format!("{BASE}.include");
    check.require(rag.include.len() <= MAX_PATTERNS, &field, || format!("has more than {MAX_PATTERNS} patterns"));
    for pattern in &rag.include {
        let fits = (1..=MAX_PATTERN_BYTES).contains(&pattern.len()) && pattern.chars().all(|c| !c.is_control());
        check.require(fits, &field, || format!("`{pattern}` has no, or more than {MAX_PATTERN_BYTES}, bytes"));
        let stays = pattern.split('/').all(|part| !matches!(part, "" | "." | ".."));
        check.require(stays, &field, || {
            format!("`{pattern}` is no path below the folder: no `/` at its ends, and no `.`, `..` or `//`")
        });
    }
}
