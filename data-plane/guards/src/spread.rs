//! Card numbers whose groups stand further apart than a space or a dash: several spaces, ` - `, no-break spaces and
//! hyphens, dashes of all lengths. So people copy them out of documents, and so somebody writes one that is not to be found.
//!
//! All gaps of a number are of one form. Where that is wider than one blank, or has a dash, nothing of the same form may go
//! on before or after: columns of a table have four digits, too.

use crate::{
    bytes::{ALNUM, is_at},
    card::{LAYOUTS, card_of},
    finding::Finding,
    numbers::starts_clean,
};

/// Digits before the first gap.
pub(crate) const FIRST_GROUP: usize = 4;
/// Most signs in a gap, and most bytes. With these the longest card and what follows it are within what `numbers` reaches.
const GAP_SIGNS: usize = 3;
const GAP_MAX: usize = 7;
/// Digits of the longest card.
const DIGITS_MAX: usize = 19;

/// What stands between two groups: its signs, each as the plain one of its sort, and zeros.
type Gap = [u8; GAP_SIGNS];

const BLANK: Gap = [b' ', 0, 0];

/// The card that begins with the four digits at `start`.
pub(crate) fn find(buf: &[u8], start: usize) -> Option<Finding> {
    // Most groups of four digits are years; they must cost next to nothing.
    if !matches!(buf.get(start)?, b'2'..=b'6') {
        return None;
    }
    let (gap, _) = gap_at(buf, start + FIRST_GROUP)?;
    let plus = start > 0 && buf.get(start - 1) == Some(&b'+');
    if plus || !starts_clean(buf, start) {
        return None;
    }
    let card = LAYOUTS.iter().find_map(|layout| spread(buf, start, layout, gap))?;
    (gap == BLANK || !goes_on(buf, &card, gap)).then_some(card)
}

/// A card in groups of these lengths with this gap between them.
fn spread(buf: &[u8], start: usize, layout: &[usize], gap: Gap) -> Option<Finding> {
    let (mut digits, mut count, mut at) = ([0u8; DIGITS_MAX], 0, start);
    for (nth, len) in layout.iter().enumerate() {
        if nth > 0 {
            let (found, width) = gap_at(buf, at)?;
            if found != gap {
                return None;
            }
            at += width;
        }
        let group = buf.get(at..at + len)?;
        for (digit, byte) in digits.get_mut(count..count + len)?.iter_mut().zip(group) {
            *digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        }
        (count, at) = (count + len, at + len);
    }
    if is_at(buf, at, ALNUM) || continues(buf, at) {
        return None;
    }
    card_of(digits.get(..count)?, start, at)
}

/// Whether a dash or a dot and more digits follow; `.0` may.
fn continues(buf: &[u8], end: usize) -> bool {
    let is_digit = |at: usize| buf.get(at).is_some_and(u8::is_ascii_digit);
    match buf.get(end) {
        Some(b'.') => is_digit(end + 1) && (buf.get(end + 1) != Some(&b'0') || is_at(buf, end + 2, ALNUM)),
        Some(b'-') => is_digit(end + 1),
        _ => false,
    }
}

/// Whether there are more digits before or after, in the same distance.
fn goes_on(buf: &[u8], card: &Finding, gap: Gap) -> bool {
    let after = gap_at(buf, card.end).is_some_and(|(found, _)| found == gap);
    let before = (1..=GAP_MAX).any(|width| {
        let digit = card.start.checked_sub(width + 1).and_then(|at| buf.get(at));
        digit.is_some_and(u8::is_ascii_digit) && gap_at(buf, card.start - width) == Some((gap, width))
    });
    after || before
}

/// The gap at `from`, if a digit follows it: one to three blanks, a dash, or a dash, dot or slash between two blanks; and how
/// many bytes it takes.
fn gap_at(buf: &[u8], from: usize) -> Option<(Gap, usize)> {
    let (mut gap, mut at) = (Gap::default(), from);
    for slot in &mut gap {
        let Some((sign, width)) = sign_at(buf, at) else { break };
        *slot = sign;
        at += width;
    }
    let is_gap = matches!(gap, [b' ', b' ' | 0, b' ' | 0] | [b' ', _, b' '] | [_, 0, 0]) && gap != Gap::default();
    let is_one = is_gap && at - from <= GAP_MAX && buf.get(at).is_some_and(u8::is_ascii_digit);
    is_one.then_some((gap, at - from))
}

/// The sign at `at`, as the plain one of its sort, and its length in UTF-8.
fn sign_at(buf: &[u8], at: usize) -> Option<(u8, usize)> {
    match buf.get(at..)? {
        [plain @ (b' ' | b'-' | b'.' | b'/'), ..] => Some((*plain, 1)),
        // U+00A0, the no-break space; U+00AD, the soft hyphen.
        [0xc2, 0xa0, ..] => Some((b' ', 2)),
        [0xc2, 0xad, ..] => Some((b'-', 2)),
        // U+2000 to U+200B, U+202F and U+3000: spaces of other widths, also of none.
        [0xe2, 0x80, 0x80..=0x8b | 0xaf, ..] | [0xe3, 0x80, 0x80, ..] => Some((b' ', 3)),
        // U+2010 to U+2015, hyphens and dashes, and U+2212, the minus sign.
        [0xe2, 0x80, 0x90..=0x95, ..] | [0xe2, 0x88, 0x92, ..] => Some((b'-', 3)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_of_few_forms() {
        for (text, gap) in [
            ("  1", Some(([b' ', b' ', 0], 2))),
            ("   1", Some(([b' ', b' ', b' '], 3))),
            ("\u{a0}1", Some((BLANK, 2))),
            ("\u{2009}1", Some((BLANK, 3))),
            ("\u{2011}1", Some(([b'-', 0, 0], 3))),
            (" - 1", Some(([b' ', b'-', b' '], 3))),
            (" \u{2013} 1", Some(([b' ', b'-', b' '], 5))),
            ("\u{a0}-\u{a0}1", Some(([b' ', b'-', b' '], 5))),
            (" / 1", Some(([b' ', b'/', b' '], 3))),
            ("    1", None),
            ("--1", None),
            (" -1", None),
            ("- 1", None),
            ("  - 1", None),
            ("\u{2009}\u{2009}\u{2009}1", None),
            (" x", None),
            ("1", None),
            ("", None),
        ] {
            assert_eq!(gap_at(text.as_bytes(), 0), gap, "{text:?}");
        }
    }
}
