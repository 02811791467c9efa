//! Values with digits in them: cards, IBANs, phones, national ids.
//!
//! One walk over the words that hold a digit. A word is looked at once, by its shape: how many
//! letters it begins with and how its digits are grouped decide which checks are worth running. What
//! is said of a word depends on at most [`LOOK_BEHIND`] bytes before it and [`REACH`] bytes from its
//! start, so it is the same whatever else is in the buffer.

use crate::{
    bytes::{ALNUM, digits_end, is, is_at, next_digit, run_end, run_start},
    card,
    finding::Finding,
    iban,
    kind::{Kind, KindSet},
    national, phone, spread,
};

/// How far from the start of a number its end, and the byte after it, can be. The longest is an IBAN
/// of 34 characters in groups of four.
pub(crate) const REACH: usize = 64;

/// How far back from a number it matters what was there: its word, and words that say what it is.
pub(crate) const LOOK_BEHIND: usize = 128;

/// A word with more letters before its first digit is no number that we know.
const LETTERS_MAX: usize = 48;

const KINDS: u32 = Kind::Card.bit()
    | Kind::Iban.bit()
    | Kind::Phone.bit()
    | Kind::UsSsn.bit()
    | Kind::EsDni.bit()
    | Kind::NlBsn.bit()
    | Kind::ItFiscalCode.bit()
    | Kind::DeTaxId.bit();

/// Finds the numbers that start in `from..limit`.
pub(crate) fn scan(buf: &[u8], from: usize, limit: usize, kinds: KindSet, found: &mut Vec<Finding>) {
    if !kinds.has_any(KINDS) {
        return;
    }
    let mut at = from;
    while let Some(digit) = next_digit(buf, at) {
        let start =
            if digit > 0 && is(buf[digit - 1], ALNUM) { run_start(buf, digit, LETTERS_MAX, 0, ALNUM) } else { digit };
        if start > limit {
            return;
        }
        if start > digit {
            // The digit is one of `\u00a0`; the word begins after that.
            at = start;
            continue;
        }
        let letters = digit - start;
        let too_long = letters == LETTERS_MAX && start > 0 && is_at(buf, start - 1, ALNUM);
        // What begins before `from` was judged when it was there.
        let finding = if start < from || too_long {
            None
        } else {
            look(buf, start, letters, kinds).filter(|f| f.start >= from && f.start < limit)
        };
        at = match finding {
            Some(finding) => {
                found.push(finding);
                finding.end
            }
            None => run_end(buf, digit, buf.len(), ALNUM),
        };
    }
}

/// What the word at `start`, with its first digit after `letters` letters, begins.
fn look(buf: &[u8], start: usize, letters: usize, kinds: KindSet) -> Option<Finding> {
    match letters {
        0 => digits(buf, start, kinds),
        1 => national::es_nie(buf, start).filter(|f| kinds.has(f.kind)),
        2 if kinds.has(Kind::Iban) && buf[start].is_ascii_uppercase() => iban::find(buf, start),
        6..=15 if kinds.has(Kind::ItFiscalCode) && buf[start].is_ascii_uppercase() => {
            national::it_fiscal_code(buf, start)
        }
        _ => None,
    }
}

/// Fewest digits that are a number without other groups: a phone number after a word.
const BARE_MIN: usize = 7;

fn digits(buf: &[u8], start: usize, kinds: KindSet) -> Option<Finding> {
    // Most words with digits are none of ours; they must cost next to nothing.
    let first = digits_end(buf, start, WINDOW);
    if first - start == DNI_DIGITS
        && kinds.has(Kind::EsDni)
        && let Some(dni) = national::es_dni(buf, start)
    {
        return Some(dni);
    }
    if is_at(buf, first, ALNUM) {
        return None;
    }
    if first - start < BARE_MIN && separator_at(buf, first).is_none() {
        let is_spread = first - start == spread::FIRST_GROUP && kinds.has(Kind::Card);
        return if is_spread { spread::find(buf, start) } else { None };
    }
    let run = Groups::parse(buf, start);
    let groups = run.count - usize::from(run.tail_is_word);
    if groups == 0 || run.digits(groups).len() < BARE_MIN { None } else { first_groups(buf, &run, kinds) }
}

/// Digits of a Spanish number, before its letter.
const DNI_DIGITS: usize = 8;

fn first_groups(buf: &[u8], run: &Groups, kinds: KindSet) -> Option<Finding> {
    if !starts_clean(buf, run.start) {
        return None;
    }
    let of = |kind: Kind, find: fn(&[u8], &Groups) -> Option<Finding>| {
        if kinds.has(kind) { find(buf, run) } else { None }
    };
    let after_plus = run.start > 0 && buf[run.start - 1] == b'+';
    let international = if after_plus { of(Kind::Phone, phone::find) } else { None };
    international
        .or_else(|| of(Kind::Card, card::find))
        .or_else(|| of(Kind::UsSsn, national::us_ssn))
        .or_else(|| of(Kind::DeTaxId, national::de_tax_id))
        .or_else(|| of(Kind::NlBsn, national::nl_bsn))
        .or_else(|| of(Kind::Phone, phone::find))
}

/// Most groups that a number is written in.
const GROUPS_MAX: usize = 10;
/// What a number may take, less the three bytes after it that are looked at.
const WINDOW: usize = REACH - 3;

/// Digits in groups with separators between them, as in `4111 1111 1111 1111` or `(415) 555-0132`.
pub(crate) struct Groups {
    /// Offset of the first digit.
    pub(crate) start: usize,
    digits: [u8; WINDOW],
    groups: [Group; GROUPS_MAX],
    count: usize,
    /// Letters follow the last group at once.
    tail_is_word: bool,
}

/// Where a group ends, and what led to it.
#[derive(Clone, Copy, Default)]
struct Group {
    /// How many digits there are up to its end.
    digits: u8,
    /// Offset after it, from the start of the number.
    end: u8,
    /// What stands before it; 0 before the first.
    separator: u8,
}

impl Groups {
    /// The groups from the digit at `start` on.
    fn parse(buf: &[u8], start: usize) -> Groups {
        let window = &buf[start..buf.len().min(start + WINDOW)];
        let mut run = Groups {
            start,
            digits: [0; WINDOW],
            groups: [Group::default(); GROUPS_MAX],
            count: 0,
            tail_is_word: false,
        };
        let (mut at, mut digits, mut separator) = (0usize, 0usize, 0);
        while run.count < GROUPS_MAX {
            while let Some(d) = window.get(at).filter(|b| b.is_ascii_digit()) {
                run.digits[digits] = d - b'0';
                digits += 1;
                at += 1;
            }
            run.groups[run.count] = Group { digits: digits as u8, end: at as u8, separator };
            run.count += 1;
            let Some((found, width)) = separator_at(window, at) else { break };
            separator = found;
            at += width;
        }
        run.tail_is_word = is_at(buf, run.end(run.count), ALNUM);
        run
    }

    /// How many digits each of the first groups has; 0 where there is none.
    pub(crate) fn shape<const N: usize>(&self) -> [usize; N] {
        let mut shape = [0; N];
        let mut before = 0;
        for (len, group) in shape.iter_mut().zip(&self.groups[..self.count]) {
            *len = usize::from(group.digits - before);
            before = group.digits;
        }
        shape
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// What stands before a group.
    pub(crate) fn separator(&self, group: usize) -> u8 {
        self.groups[group].separator
    }

    /// Whether the first `groups` groups have one and the same separator, and it is one of these.
    pub(crate) fn separated_by(&self, groups: usize, allowed: &[u8]) -> bool {
        let first = self.separator(1);
        allowed.contains(&first) && self.groups[1..groups].iter().all(|g| g.separator == first)
    }

    /// The digits of the first `groups` groups.
    pub(crate) fn digits(&self, groups: usize) -> &[u8] {
        &self.digits[..usize::from(self.groups[groups - 1].digits)]
    }

    /// Offset after the first `groups` groups.
    fn end(&self, groups: usize) -> usize {
        self.start + usize::from(self.groups[groups - 1].end)
    }

    /// The first `groups` groups, if what follows them does not continue the number.
    pub(crate) fn take(&self, buf: &[u8], groups: usize) -> Option<(&[u8], usize)> {
        if groups == 0 || groups > self.count {
            return None;
        }
        let end = self.end(groups);
        // Programs that keep numbers as floats write `.0` behind whole ones.
        let float = buf.get(end) == Some(&b'.') && buf.get(end + 1) == Some(&b'0') && !is_at(buf, end + 2, ALNUM);
        let ends = if groups == self.count {
            !self.tail_is_word
        } else {
            // More digits follow: a new number after a blank, the same one after a dot or a dash.
            float || !matches!(self.separator(groups), b'-' | b'.')
        };
        let fraction = buf.get(end) == Some(&b'.') && buf.get(end + 1).is_some_and(u8::is_ascii_digit) && !float;
        (ends && !fraction).then(|| (self.digits(groups), end))
    }
}

/// Whether digits are not the rest of a longer number (`0.4111…`, `12-4111…`).
pub(crate) fn starts_clean(buf: &[u8], start: usize) -> bool {
    let before = |back: usize| start.checked_sub(back).and_then(|at| buf.get(at)).copied().unwrap_or(b' ');
    !(matches!(before(1), b'.' | b'-') && before(2).is_ascii_digit())
}

/// A separator that more digits follow, and how many bytes it takes.
#[inline]
fn separator_at(window: &[u8], at: usize) -> Option<(u8, usize)> {
    let digit = |i: usize| window.get(at + i).is_some_and(u8::is_ascii_digit);
    match (window.get(at)?, window.get(at + 1)?) {
        (c @ (b' ' | b'-' | b'.' | b'/' | b')' | b'('), _) if digit(1) => Some((*c, 1)),
        (b')', b' ' | b'-') | (b' ', b'(') if digit(2) => Some((b')', 2)),
        _ => None,
    }
}
