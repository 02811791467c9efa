//! A caller's text as a question to the index of words.
//!
//! Invariants: whatever the text is, what comes out is quoted words of it joined by `OR` and nothing else, so that no
//! operator, column or prefix of FTS5's query language can be written by a caller.

use std::collections::BTreeSet;

/// Words of one question that are looked for; the others are left out.
const MAX_TERMS: usize = 48;

/// The question for `MATCH`; `None`: the text has no word.
///
/// Between quotes everything but a quote is text (SQLite, "FTS5 Strings"). What the tokenizer makes several words of
/// (`kill-switch`) is found as a phrase.
pub(super) fn question(text: &str) -> Option<String> {
    let mut seen = BTreeSet::new();
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| *c != '"' && !c.is_control()).collect();
        if word.chars().any(char::is_alphanumeric) {
            seen.insert(word.to_lowercase());
        }
        if seen.len() >= MAX_TERMS {
            break;
        }
    }
    let terms: Vec<String> = seen.iter().map(|word| format!("\"{word}\"")).collect();
    (!terms.is_empty()).then(|| terms.join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_an_operator() {
        let table = [
            ("Kill switch", Some(r#""kill" OR "switch""#)),
            ("a AND NOT b", Some(r#""a" OR "and" OR "b" OR "not""#)),
            (r#"text:x" OR headings:"y"#, Some(r#""headings:y" OR "or" OR "text:x""#)),
            ("NEAR(a b, 2) c* ^d", Some(r#""2)" OR "^d" OR "b," OR "c*" OR "near(a""#)),
            ("{a b} : c", Some(r#""b}" OR "c" OR "{a""#)),
            ("a\0b", Some(r#""ab""#)),
            (r#"" "" * - ( ) : ^ +"#, None),
            ("", None),
            ("a a A", Some(r#""a""#)),
        ];
        for (text, expect) in table {
            assert_eq!(question(text).as_deref(), expect, "{text:?}");
        }
        let many: String = (0..1_000).map(|n| format!("w{n} ")).collect();
        assert_eq!(question(&many).map(|q| q.matches('"').count()), Some(2 * MAX_TERMS));
    }
}
