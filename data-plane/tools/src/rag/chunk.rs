//! A document cut into the pieces that are searched.
//!
//! Invariants: a piece lies in one section, so that its headings and its page are those of all of its text; it knows
//! its first and last line; it has no more words and bytes than its size says; all text of the sections is in some
//! piece.

use super::text::{Section, Text};

/// Bytes of a piece for each word of its size: words of most languages are shorter, and text without spaces (tables,
/// Chinese, keys) ends here.
const BYTES_PER_WORD: usize = 8;
/// The most words of what a line is taken apart into, if it is longer.
const MAX_PART_WORDS: usize = 20;
/// A part may end with a sentence from here on.
const MIN_SENTENCE_WORDS: usize = 6;

/// How large pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) words: usize,
    /// Words that a piece shares with the one before.
    pub(super) overlap: usize,
}

impl Size {
    fn bytes(self) -> usize {
        self.words * BYTES_PER_WORD
    }
}

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) headings: Vec<String>,
    pub(super) page: Option<u32>,
    /// Counted from 1.
    pub(super) first_line: usize,
    pub(super) last_line: usize,
    pub(super) text: String,
}

impl Chunk {
    /// What its vector is made of: where it stands says what it is about.
    pub(super) fn embedded(&self, title: &str) -> String {
        let mut place = vec![title];
        place.extend(self.headings.iter().map(String::as_str).filter(|heading| *heading != title));
        format!("{}\n{}", place.join(" > "), self.text)
    }
}

/// A line, or a part of a long one.
struct Part<'a> {
    line: usize,
    text: &'a str,
    words: usize,
    /// The first of a paragraph.
    opens: bool,
}

/// The pieces of a document, in its order.
pub(super) fn cut(text: &Text, size: Size) -> Vec<Chunk> {
    text.sections.iter().flat_map(|section| cut_section(text, section, size)).collect()
}

fn cut_section(text: &Text, section: &Section, size: Size) -> Vec<Chunk> {
    let parts = parts_of(text, section, size);
    let mut chunks = Vec::new();
    let (mut from, mut done) = (0, 0);
    while done < parts.len() {
        let to = end(&parts, from, done, size);
        chunks.extend(chunk(section, parts.get(from..to).unwrap_or_default()));
        done = to;
        from = beginning(&parts, from, done, size);
    }
    chunks
}

/// Where a piece ends that begins with one part and has to go further than what is done.
fn end(parts: &[Part<'_>], from: usize, done: usize, size: Size) -> usize {
    let (mut words, mut bytes) = (0, 0);
    let mut to = from;
    for part in parts.iter().skip(from) {
        words += part.words;
        bytes += part.text.len() + 1;
        if to > done && (words > size.words || bytes > size.bytes()) {
            break;
        }
        to += 1;
    }
    if to >= parts.len() {
        return parts.len();
    }
    // Between paragraphs, if that leaves at least half of a piece.
    let half = from + (to - from).div_ceil(2);
    let between = (half.max(done + 1)..=to).rev().find(|at| parts.get(*at).is_some_and(|part| part.opens));
    between.unwrap_or(to)
}

/// Where the piece after begins: some words before the end of this one.
fn beginning(parts: &[Part<'_>], from: usize, done: usize, size: Size) -> usize {
    let (mut words, mut bytes) = (0, 0);
    let mut at = done;
    for part in parts.iter().take(done).skip(from + 1).rev() {
        words += part.words;
        bytes += part.text.len() + 1;
        if words > size.overlap || bytes > size.bytes() / 4 {
            break;
        }
        at -= 1;
    }
    at
}

fn chunk(section: &Section, parts: &[Part<'_>]) -> Option<Chunk> {
    let (first, last) = (parts.first()?, parts.last()?);
    let mut text = String::new();
    let mut line = None;
    for part in parts {
        text.push_str(match line {
            None => "",
            Some(line) if line == part.line => " ",
            Some(_) if part.opens => "\n\n",
            Some(_) => "\n",
        });
        text.push_str(part.text);
        line = Some(part.line);
    }
    Some(Chunk {
        headings: section.headings.clone(),
        page: section.page,
        first_line: first.line + 1,
        last_line: last.line + 1,
        text,
    })
}

fn parts_of<'a>(text: &'a Text, section: &Section, size: Size) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut opens = true;
    let lines = text.lines.iter().enumerate().take(section.lines.end).skip(section.lines.start);
    for (line, whole) in lines {
        if whole.trim().is_empty() {
            opens = true;
            continue;
        }
        for text in taken_apart(whole.trim_end(), size) {
            let words = text.split_whitespace().count();
            parts.push(Part { line, text, words, opens: std::mem::take(&mut opens) });
        }
    }
    parts
}

/// A line as it is, or as parts of which a piece takes several.
fn taken_apart(line: &str, size: Size) -> Vec<&str> {
    let (max_words, max_bytes) = ((size.words / 8).clamp(1, MAX_PART_WORDS), size.bytes() / 4);
    if line.len() <= max_bytes && line.split_whitespace().count() <= max_words {
        return vec![line];
    }
    let mut parts = Vec::new();
    // Where the part began, the end of its last word, and how many words it has.
    let (mut from, mut end, mut words) = (None::<usize>, 0, 0);
    for (at, word) in words_of(line, max_bytes) {
        let after = at + word.len();
        if let Some(began) = from
            && (words >= max_words || after - began > max_bytes)
        {
            parts.extend(line.get(began..end));
            (from, words) = (None, 0);
        }
        let began = *from.get_or_insert(at);
        (end, words) = (after, words + 1);
        if words >= MIN_SENTENCE_WORDS && word.ends_with(['.', '!', '?', '。', ':', ';']) {
            parts.extend(line.get(began..end));
            (from, words) = (None, 0);
        }
    }
    parts.extend(from.and_then(|began| line.get(began..end)));
    parts
}

/// The words of a line with their places; one that is longer than so many bytes is several.
fn words_of(line: &str, max_bytes: usize) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut from = None::<usize>;
    for (at, c) in line.char_indices() {
        match from {
            Some(began) if c.is_whitespace() => {
                words.extend(line.get(began..at).map(|word| (began, word)));
                from = None;
            }
            Some(began) if at + c.len_utf8() - began > max_bytes => {
                words.extend(line.get(began..at).map(|word| (began, word)));
                from = Some(at);
            }
            None if !c.is_whitespace() => from = Some(at),
            _ => {}
        }
    }
    if let Some(began) = from {
        words.extend(line.get(began..).map(|word| (began, word)));
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size { words: 20, overlap: 4 };

    fn text(lines: &[&str]) -> Text {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let section = Section { headings: vec!["A".to_owned(), "B".to_owned()], page: None, lines: 0..lines.len() };
        Text { title: "A".to_owned(), sections: vec![section], lines, pages: 0 }
    }

    fn pieces(lines: &[&str]) -> Vec<(usize, usize, String)> {
        cut(&text(lines), SIZE).into_iter().map(|c| (c.first_line, c.last_line, c.text)).collect()
    }

    #[test]
    fn what_fits_is_one_piece_and_knows_its_place() {
        let cut = cut(&text(&["", "one two", "", "three", ""]), SIZE);
        let [chunk] = cut.as_slice() else { panic!("{cut:?}") };
        assert_eq!((chunk.first_line, chunk.last_line, chunk.text.as_str()), (2, 4, "one two\n\nthree"));
        assert_eq!(chunk.embedded("A"), "A > B\none two\n\nthree");
        assert_eq!(chunk.embedded("T"), "T > A > B\none two\n\nthree");
        assert!(pieces(&["", "  "]).is_empty());
    }

    #[test]
    fn a_piece_ends_between_paragraphs_where_it_can() {
        let ten = "a b c d e f g h i j";
        assert_eq!(
            pieces(&["k l m n", ten, "", "o p q r s t u v w", "x"]),
            [(1, 2, format!("k l m n\n{ten}")), (2, 5, "g h i j\n\no p q r s t u v w\nx".to_owned())]
        );
    }

    #[test]
    fn a_long_line_is_taken_apart_and_its_pieces_overlap() {
        let words: Vec<String> = (0..50).map(|n| format!("w{n}")).collect();
        let read = pieces(&[&words.join(" ")]);
        assert!(read.len() > 2, "{read:?}");
        assert!(read.iter().all(|(first, last, text)| (*first, *last) == (1, 1) && text.split(' ').count() <= 20));
        assert!(read[0].2.starts_with("w0 ") && read[read.len() - 1].2.ends_with(" w49"), "{read:?}");
        let shared = read[1].2.split(' ').next().unwrap_or_default();
        assert!(read[0].2.split(' ').any(|word| word == shared), "{read:?}");
        // Without a space, too.
        let read = pieces(&[&"x".repeat(1_000)]);
        assert!(read.len() > 5 && read.iter().all(|(_, _, text)| text.len() <= 2 * SIZE.bytes()), "{read:?}");
        assert_eq!(read.iter().map(|(_, _, text)| text.matches('x').count()).sum::<usize>(), 1_000);
    }

    proptest! {
        #[test]
        fn all_words_are_in_pieces_of_the_size(
            lines in prop::collection::vec("([a-zé#]{0,9}[.]{0,1} ){0,60}", 0..12),
            words in 20_usize..60,
            overlap in 0_usize..10,
        ) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let text = text(&lines);
            let size = Size { words, overlap };
            let chunks = cut(&text, size);
            let found: BTreeSet<&str> = chunks.iter().flat_map(|c| c.text.split_whitespace()).collect();
            for word in lines.iter().flat_map(|line| line.split_whitespace()) {
                prop_assert!(found.contains(word), "{word} is lost");
            }
            for chunk in &chunks {
                prop_assert!(chunk.text.split_whitespace().count() <= size.words, "{chunk:?}");
                prop_assert!(chunk.text.len() <= size.bytes() * 2, "{chunk:?}");
                prop_assert!(chunk.first_line >= 1 && chunk.first_line <= chunk.last_line, "{chunk:?}");
                prop_assert!(chunk.last_line <= lines.len(), "{chunk:?}");
            }
            let ends: Vec<usize> = chunks.iter().map(|c| c.last_line).collect();
            prop_assert!(ends.is_sorted(), "{ends:?}");
        }
    }
}
