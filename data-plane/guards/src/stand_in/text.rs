//! How a token is written: `[[pv:KINDS:BODY]]`, and `[[pv:KINDS#:BODY]]` where JSON had a number.
//!
//! KINDS are names of kinds with `+` between them, BODY is base32 in small letters without padding
//! (RFC 4648, section 6). Nothing of it needs an escape in JSON, XML, a URL's query after encoding once,
//! or Markdown; and a body is one long word of small letters and digits, which no detector takes.

use std::ops::Range;

/// How a token begins.
pub(super) const MARK: &[u8] = b"[[pv:";
const END: &[u8] = b"]]";
/// Longest value that a token stands for; a longer one is masked.
pub(crate) const VALUE_MAX: usize = 4096;
/// How much longer a sealed value may be.
const SEAL_MAX: usize = 26;
/// Longest list of kinds: all of them are shorter.
const KINDS_MAX: usize = 256;
const BODY_MAX: usize = (VALUE_MAX + SEAL_MAX).div_ceil(5) * 8;
/// Longest token.
pub(crate) const STAND_IN_MAX: usize = MARK.len() + KINDS_MAX + 2 + BODY_MAX + END.len();
/// How many backslashes before a quote are looked past: JSON in JSON in JSON.
pub(crate) const SLASHES_MAX: usize = 7;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What stands at a place.
pub(super) enum Look<'a> {
    Token(Written<'a>),
    Nothing,
    /// The end of the buffer cuts off what may be one.
    Cut,
}

/// A text of the shape of a token.
pub(super) struct Written<'a> {
    pub(super) kinds: &'a str,
    pub(super) is_number: bool,
    pub(super) body: &'a [u8],
    pub(super) end: usize,
}

/// Looks at a place where [`MARK`] stands.
pub(super) fn look(buf: &[u8], start: usize) -> Look<'_> {
    let kinds_start = start + MARK.len();
    let kinds_end = run_end(buf, kinds_start, KINDS_MAX, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'+'));
    let is_number = buf.get(kinds_end) == Some(&b'#');
    let colon = kinds_end + usize::from(is_number);
    match buf.get(colon) {
        None => return Look::Cut,
        Some(b':') => {}
        Some(_) => return Look::Nothing,
    }
    let body_end = run_end(buf, colon + 1, BODY_MAX, |b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
    let rest = buf.get(body_end..).unwrap_or_default();
    if rest.len() < END.len() && END.starts_with(rest) {
        return Look::Cut;
    }
    if !rest.starts_with(END) {
        return Look::Nothing;
    }
    let kinds = buf.get(kinds_start..kinds_end).and_then(|kinds| std::str::from_utf8(kinds).ok());
    match (kinds, buf.get(colon + 1..body_end)) {
        (Some(kinds), Some(body)) if !body.is_empty() => {
            Look::Token(Written { kinds, is_number, body, end: body_end + END.len() })
        }
        _ => Look::Nothing,
    }
}

fn run_end(buf: &[u8], from: usize, max: usize, is: impl Fn(u8) -> bool) -> usize {
    let run = buf.get(from..buf.len().min(from + max)).unwrap_or_default();
    from + run.iter().position(|b| !is(*b)).unwrap_or(run.len())
}

/// A token as text; `None` if it would be longer than one may be.
pub(super) fn written(kinds: &str, is_number: bool, sealed: &[u8]) -> Option<Vec<u8>> {
    let mark = if is_number { "#" } else { "" };
    let text = [MARK, kinds.as_bytes(), mark.as_bytes(), b":", &armour(sealed), END].concat();
    (kinds.len() <= KINDS_MAX && text.len() <= STAND_IN_MAX).then_some(text)
}

fn armour(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut count) = (0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(ALPHABET[(bits >> count & 31) as usize]);
        }
    }
    if count > 0 {
        out.push(ALPHABET[(bits << (5 - count) & 31) as usize]);
    }
    out
}

/// The bytes; `None` unless the text is what [`armour`] makes of them.
pub(super) fn unarmour(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0u32, 0);
    for char in text {
        let value = match char {
            b'a'..=b'z' => char - b'a',
            b'2'..=b'7' => char - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 255) as u8);
        }
    }
    (armour(&out) == text).then_some(out)
}

/// The token with the quotes around it, escaped alike on both sides.
pub(super) fn quoted(buf: &[u8], token: Range<usize>, from: usize) -> Option<Range<usize>> {
    let start = quote_start(buf, token.start, from);
    let quote = buf.get(start..token.start).filter(|quote| !quote.is_empty())?;
    let after = buf.get(token.end..)?;
    after.starts_with(quote).then(|| start..token.end + quote.len())
}

/// Where the quote that ends at `at` begins, with its backslashes; `at` if there is none.
pub(super) fn quote_start(buf: &[u8], at: usize, from: usize) -> usize {
    let before = buf.get(from..at).unwrap_or_default();
    match before.split_last() {
        Some((b'"', before)) => {
            let slashes = before.iter().rev().take(SLASHES_MAX).take_while(|b| **b == b'\\').count();
            at - 1 - slashes
        }
        _ => at,
    }
}

/// Whether a text is a number as JSON writes one, without an exponent.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_one_thing_only() {
        for len in 0..40u8 {
            let bytes: Vec<u8> = (0..len).map(|i| i.wrapping_mul(97)).collect();
            let text = armour(&bytes);
            assert_eq!(unarmour(&text).as_deref(), Some(bytes.as_slice()));
            // The bits that a last letter has too many are zero.
            if let Some((last, rest)) = text.split_last()
                && len % 5 != 0
            {
                let next = ALPHABET.iter().position(|c| c == last).map_or(0, |i| i + 1);
                let other = [rest, &[ALPHABET[next % 32]]].concat();
                assert_ne!(unarmour(&other).as_deref(), Some(bytes.as_slice()), "{len}");
            }
        }
        assert_eq!(armour(b"foobar"), b"mzxw6ytboi", "RFC 4648, section 10");
    }

    #[test]
    fn numbers_are_those_of_json() {
        for (text, is) in [("0", true), ("-12.50", true), ("4111", true), ("04", false), ("", false), ("1.", false)] {
            assert_eq!(is_number(text), is, "{text}");
        }
        assert!(!is_number("1e5") && !is_number("-") && !is_number("4111 1111"));
    }
}
