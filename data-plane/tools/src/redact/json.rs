//! Values inside of JSON: found in decoded strings, written over so that JSON stays JSON.

use super::Redactor;

/// A message with its values written over; `None`: it holds none. What is no JSON is handled like text where
/// it looks like one, and refused by whoever parses it.
pub(super) fn redacted(redactor: &Redactor, message: &[u8]) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    // Up to where the message has been taken over.
    let mut copied = 0;
    // If it is nowhere as it is, only strings that have to be decoded can hold it.
    let plainly = redactor.finds(message);
    let mut at = 0;
    while at < message.len() {
        let open = memchr::memchr(b'"', &message[at..]).map_or(message.len(), |n| at + n);
        if plainly && redactor.finds(&message[at..open]) {
            out.extend_from_slice(&message[copied..at]);
            // A number: other digits keep it one.
            out.extend(message[at..open].iter().map(|b| if b.is_ascii_alphanumeric() { b'1' } else { *b }));
            copied = open;
        }
        if open == message.len() {
            break;
        }
        let close = end_of_string(message, open + 1);
        let inner = &message[open + 1..close];
        let encoded = inner.iter().any(|b| matches!(b, b'\\' | b'%'));
        if (plainly || encoded)
            && let Some(changed) = string(redactor, inner)
        {
            out.extend_from_slice(&message[copied..open]);
            out.extend_from_slice(serde_json::Value::from(changed).to_string().as_bytes());
            copied = (close + 1).min(message.len());
        }
        at = close + 1;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&message[copied..]);
    Some(out)
}

/// The place of the quote that ends the string which begins at `from`.
fn end_of_string(message: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        match memchr::memchr2(b'"', b'\\', &message[at.min(message.len())..]) {
            None => return message.len(),
            Some(n) if message[at + n] == b'"' => return at + n,
            Some(n) => at += n + 2,
        }
    }
}

/// The decoded string with its values written over; `None`: it holds none.
fn string(redactor: &Redactor, inner: &[u8]) -> Option<String> {
    // Bytes that are no UTF-8 are no JSON: shown as U+FFFD if something was found, else left to the parser.
    let inner = String::from_utf8_lossy(inner);
    match inner.contains('\\') {
        true => redactor.redact(&unescape(&inner)),
        false => redactor.redact(&inner),
    }
}

/// A text with JSON's escapes undone; what is no valid escape stays, half a surrogate pair becomes U+FFFD.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        let (one, taken) = match chars.next() {
            Some('b') => ('\u{8}', 1),
            Some('f') => ('\u{c}', 1),
            Some('n') => ('\n', 1),
            Some('r') => ('\r', 1),
            Some('t') => ('\t', 1),
            Some(same @ ('"' | '\\' | '/')) => (same, 1),
            Some('u') => match unit(after) {
                Some(unit) => surrogates(unit, after),
                None => ('\\', 0),
            },
            _ => ('\\', 0),
        };
        out.push(one);
        rest = after.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The four digits after a `u`.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix('u')?.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// The character of one or two units, and the bytes after the first backslash that they take.
fn surrogates(first: u16, text: &str) -> (char, usize) {
    let second = text.get(5..).and_then(|t| t.strip_prefix('\\')).and_then(unit);
    match second.map(|second| char::decode_utf16([first, second]).next()) {
        Some(Some(Ok(pair))) if pair.len_utf16() == 2 => (pair, 11),
        _ => (char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER), 5),
    }
}
