//! Writing over what was found.
//!
//! A mask is as long as the value and keeps its form, so that people and programs see what kind of
//! thing was there. Overlapping findings are masked one after the other: a byte that one of them hides
//! stays hidden. Text in JSON stays JSON: escapes are kept, and a bare number stays a number.

use std::ops::Range;

use crate::{finding::Finding, kind::Kind};

const HIDDEN: u8 = b'*';

/// How many blanks between a number and the punctuation of JSON are looked past.
const BLANKS_MAX: usize = 16;

/// Hides a finding of `buf` in `out`, a copy of its bytes (perhaps with others hidden already).
pub(crate) fn hide(buf: &[u8], finding: &Finding, out: &mut [u8]) {
    let value = &buf[finding.range()];
    if value.iter().all(u8::is_ascii_digit) && is_json_number(buf, &finding.range()) {
        let kept = if finding.kind == Kind::Card { 4 } else { 0 };
        // No leading zero, and never what was there: an all-nines value becomes eights.
        let digit = if value.iter().all(|d| *d == b'9') { b'8' } else { b'9' };
        let hidden = value.len() - kept;
        out[..hidden].fill(digit);
        return;
    }
    hide_text(value, finding.kind, out);
}

/// Hides a value that stands in a text, or in what becomes one.
pub(crate) fn hide_text(value: &[u8], kind: Kind, out: &mut [u8]) {
    match kind {
        Kind::Card => hide_where(value, out, digits_before_last(value, 4)),
        Kind::Phone => hide_where(value, out, digits_before_last(value, 2)),
        Kind::Iban => hide_where(value, out, |i, b| i > 1 && b != b' '),
        Kind::Email => hide_where(value, out, |_, b| b != b'@' && b != b'.'),
        Kind::PrivateKey => hide_armour(value, out),
        Kind::Word => hide_where(value, out, |_, b| b != b' '),
        _ => hide_where(value, out, |_, b| b.is_ascii_alphanumeric()),
    }
}

fn hide_where(value: &[u8], out: &mut [u8], hidden: impl Fn(usize, u8) -> bool) {
    for (i, (b, o)) in value.iter().zip(out).enumerate() {
        if hidden(i, *b) {
            *o = HIDDEN;
        }
    }
}

/// All digits but the last so many.
fn digits_before_last(value: &[u8], kept: usize) -> impl Fn(usize, u8) -> bool {
    let last = value
        .iter()
        .enumerate()
        .filter(|(_, b)| b.is_ascii_digit())
        .rev()
        .nth(kept - 1)
        .map_or(value.len(), |(i, _)| i);
    move |i, b| i < last && b.is_ascii_digit()
}

/// Everything but line ends, raw or escaped. In JSON inside of JSON an escape has several backslashes, and
/// none of them may go. Whatever else follows a backslash is hidden.
fn hide_armour(value: &[u8], out: &mut [u8]) {
    let mut kept_until = 0;
    for (i, b) in value.iter().enumerate() {
        if *b == b'\\' && i >= kept_until {
            let rest = value.get(i..).unwrap_or_default();
            let slashes = rest.iter().take_while(|b| **b == b'\\').count();
            let escape = match rest.get(slashes) {
                Some(b'u') if rest.iter().skip(slashes + 1).take(4).all(u8::is_ascii_hexdigit) => 5,
                Some(b'n' | b'r' | b't' | b'b' | b'f' | b'/') => 1,
                _ => 0,
            };
            kept_until = i + slashes + escape;
        }
        if i >= kept_until && !matches!(b, b'\r' | b'\n') {
            out[i] = HIDDEN;
        }
    }
}

/// Whether the value stands where JSON has a number: after a key and `:`, or `,` or `[`, and before `,`
/// `]` or `}`. In prose a list of numbers may look so too; it gets nines for stars, which hides as much.
pub(crate) fn is_json_number(buf: &[u8], place: &Range<usize>) -> bool {
    let blank = |b: &&u8| matches!(b, b' ' | b'\n' | b'\r' | b'\t');
    let mut before = buf[..place.start].iter().rev().take(BLANKS_MAX).skip_while(blank);
    let opens = match before.next() {
        Some(b':') => before.find(|b| !blank(b)) == Some(&b'"'),
        other => matches!(other, Some(b',' | b'[')),
    };
    let after = buf[place.end..].iter().take(BLANKS_MAX).find(|b| !blank(b));
    opens && matches!(after, Some(b',' | b']' | b'}'))
}
