//! Words of a tenant's own, found as whole words.
//!
//! All words are looked for at once. A word counts where no letter or digit of any script stands next
//! to it; the case of A to Z does not matter. Words of which one is part of another are all found.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, Input, MatchKind};

use crate::{bytes::starts_word, finding::Finding, guard::Action, kind::Kind};

/// Bytes of the longest word.
pub const WORD_MAX: usize = 128;
/// How far from the start of a word its end, and the character after it, can be.
pub(crate) const WORD_REACH: usize = WORD_MAX + 4;

/// Words, each with what is done about it.
#[derive(Debug, Clone)]
pub struct Words {
    searcher: AhoCorasick,
    actions: Box<[Action]>,
}

impl Words {
    /// These words; `None` if there are none. Words longer than [`WORD_MAX`] are passed over.
    ///
    /// # Errors
    /// The words are too many for one searcher: far more than a guard may hold.
    pub fn new<'a>(words: impl IntoIterator<Item = (&'a str, Action)>) -> Result<Option<Words>, BuildError> {
        let fits = |word: &(&str, Action)| !word.0.is_empty() && word.0.len() <= WORD_MAX;
        let (words, actions): (Vec<&str>, Vec<Action>) = words.into_iter().filter(fits).unzip();
        if words.is_empty() {
            return Ok(None);
        }
        let searcher = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(words)?;
        Ok(Some(Words { searcher, actions: actions.into() }))
    }

    /// The same words for whom tokens are opened.
    #[must_use]
    pub fn revealing(&self) -> Words {
        let actions = self.actions.iter().map(|action| action.revealing()).collect();
        Words { searcher: self.searcher.clone(), actions }
    }

    pub(crate) fn any(&self, wanted: Action) -> bool {
        self.actions.contains(&wanted)
    }

    /// Finds the words that start in `from..limit`.
    pub(crate) fn scan(&self, buf: &[u8], from: usize, limit: usize, found: &mut Vec<Finding>) {
        let input = Input::new(buf).span(from..buf.len());
        // Only a searcher for another kind of match would refuse.
        let Ok(matches) = self.searcher.try_find_overlapping_iter(input) else { return };
        for hit in matches.filter(|m| m.start() < limit && is_whole(buf, m.start(), m.end())) {
            let action = self.actions.get(hit.pattern().as_usize()).copied();
            found.push(Finding { action, ..Finding::new(Kind::Word, hit.start(), hit.end()) });
        }
    }
}

fn is_whole(buf: &[u8], start: usize, end: usize) -> bool {
    let first = buf.get(start..end).and_then(|word| std::str::from_utf8(word).ok());
    let Some(word) = first else { return false };
    let begins = !word.starts_with(char::is_alphanumeric) || (starts_word(buf, start) && !letter_before(buf, start));
    let ends = !word.ends_with(char::is_alphanumeric) || !letter_after(buf, end);
    begins && ends
}

/// Whether a letter or digit beyond ASCII ends at `at`; ASCII is looked at elsewhere.
fn letter_before(buf: &[u8], at: usize) -> bool {
    let char_at = |back: usize| {
        let bytes = buf.get(at.checked_sub(back)?..at)?;
        let char = std::str::from_utf8(bytes).ok()?.chars().next()?;
        (char.len_utf8() == back).then_some(char)
    };
    (1..=4).find_map(char_at).is_some_and(|c| !c.is_ascii() && c.is_alphanumeric())
}

fn letter_after(buf: &[u8], at: usize) -> bool {
    let char_of = |len: usize| std::str::from_utf8(buf.get(at..at + len)?).ok()?.chars().next();
    (1..=4).find_map(char_of).is_some_and(char::is_alphanumeric)
}
