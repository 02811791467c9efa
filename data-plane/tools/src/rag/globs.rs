//! Which files of a folder are documents.
//!
//! Invariants: the work is bounded by the lengths of pattern and path, whatever the pattern is.

use std::collections::BTreeSet;

/// What a file is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Markdown,
    Text,
    Pdf,
}

impl Format {
    /// By the end of the name; `None`: nothing that is read without being asked for.
    fn of(path: &str) -> Option<Self> {
        let end = path.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase())?;
        match end.as_str() {
            "md" | "markdown" => Some(Self::Markdown),
            "txt" | "text" => Some(Self::Text),
            "pdf" => Some(Self::Pdf),
            _ => None,
        }
    }
}

/// The patterns of a plugin.
pub(super) struct Globs(Vec<Vec<String>>);

impl Globs {
    pub(super) fn new(patterns: &BTreeSet<String>) -> Self {
        Self(patterns.iter().map(|pattern| pattern.split('/').map(str::to_owned).collect()).collect())
    }

    /// What the file of this path is read as; `None`: it is no document.
    pub(super) fn format(&self, path: &str) -> Option<Format> {
        let format = Format::of(path);
        if self.0.is_empty() {
            return format;
        }
        let path: Vec<&str> = path.split('/').collect();
        let is_wanted = self.0.iter().any(|pattern| {
            let fits = |part: &&String, name: &&str| is_name(part, name);
            matches(pattern.iter(), &path, |part| part.as_str() == "**", fits)
        });
        // Whoever names a file of another kind means that it is text.
        is_wanted.then(|| format.unwrap_or(Format::Text))
    }
}

/// Whether a name fits one part of a pattern.
fn is_name(part: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    matches(part.chars(), &name, |c| *c == '*', |wanted, c| wanted == c)
}

/// Whether the parts of a pattern take up all items: one each, or any number.
fn matches<P, T>(
    pattern: impl Iterator<Item = P>,
    items: &[T],
    is_any: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    // Whether the pattern so far takes up the first n items, for each n.
    let mut reached: Vec<bool> = (0..=items.len()).map(|n| n == 0).collect();
    for part in pattern {
        if is_any(&part) {
            let mut seen = false;
            for one in &mut reached {
                seen |= *one;
                *one = seen;
            }
        } else {
            let mut next = vec![false];
            next.extend(reached.iter().zip(items).map(|(before, item)| *before && fits(&part, item)));
            reached = next;
        }
    }
    reached.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_documents_by_their_name_or_by_the_patterns() {
        let table: [(&[&str], &str, Option<Format>); 18] = [
            (&[], "a.md", Some(Format::Markdown)),
            (&[], "b/c.PDF", Some(Format::Pdf)),
            (&[], "c.txt", Some(Format::Text)),
            (&[], "d.rs", None),
            (&[], "README", None),
            (&["*.md"], "a.md", Some(Format::Markdown)),
            (&["*.md"], "b/a.md", None),
            (&["*.md"], "a.pdf", None),
            (&["**/*.md"], "a.md", Some(Format::Markdown)),
            (&["**/*.md"], "b/c/a.md", Some(Format::Markdown)),
            (&["b/**"], "b/c/a.pdf", Some(Format::Pdf)),
            (&["b/**"], "c/a.pdf", None),
            (&["b/**/a.md"], "b/a.md", Some(Format::Markdown)),
            (&["guide*"], "guide-of.log", Some(Format::Text)),
            (&["*a*b*"], "xxaxxbxx", Some(Format::Text)),
            (&["*a*b*"], "xxbxxaxx", None),
            (&["x", "*.txt"], "a.txt", Some(Format::Text)),
            (&["é*.md"], "état.md", Some(Format::Markdown)),
        ];
        for (patterns, path, expect) in table {
            let globs = Globs::new(&patterns.iter().map(|p| (*p).to_owned()).collect());
            assert_eq!(globs.format(path), expect, "{patterns:?} {path}");
        }
        // A pattern that takes exponential time where it is tried in every way.
        let long = format!("{}b", "*a".repeat(120));
        let globs = Globs::new(&[long].into());
        assert_eq!(globs.format(&"a".repeat(250)), None);
    }
}
