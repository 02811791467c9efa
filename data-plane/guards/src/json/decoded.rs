//! What a string says once its escapes are decoded, and where each byte of that stands in it.

use memchr::{memchr, memchr_iter};

/// Whether a text has escapes that can hide a value: `\u0034`, `\/`. Others (`\n`, `\"`) end words in
/// both forms.
pub(super) fn may_hide(text: &[u8]) -> bool {
    memchr_iter(b'\\', text).any(|at| matches!(text.get(at + 1), Some(b'u' | b'/')))
}

/// A decoded text.
pub(super) struct Decoded {
    pub(super) text: Vec<u8>,
    /// Where each byte comes from, and at last the end.
    origins: Vec<usize>,
}

impl Decoded {
    /// Decodes the escapes of `raw`, which begins at `offset` of the text that positions are told in.
    /// What is no escape stays as it is.
    pub(super) fn of(raw: &[u8], offset: usize) -> Self {
        Self::new(raw, |at| offset + at)
    }

    /// Decodes what was decoded once more.
    pub(super) fn again(&self) -> Self {
        Self::new(&self.text, |at| self.origin(at))
    }

    /// Where the byte at `at` (or the end) comes from.
    pub(super) fn origin(&self, at: usize) -> usize {
        self.origins.get(at).or(self.origins.last()).copied().unwrap_or_default()
    }

    fn new(raw: &[u8], origin: impl Fn(usize) -> usize) -> Self {
        let mut out = Self { text: Vec::with_capacity(raw.len()), origins: Vec::with_capacity(raw.len() + 1) };
        let mut at = 0;
        while let Some(found) = memchr(b'\\', raw.get(at..).unwrap_or_default()) {
            out.push(&raw[at..at + found], |i| origin(at + i));
            at += found;
            let (decoded, len) = escape(&raw[at..]);
            let from = origin(at);
            match decoded {
                Some(c) => out.push(c.encode_utf8(&mut [0; 4]).as_bytes(), |_| from),
                None => out.push(&raw[at..at + len], |i| origin(at + i)),
            }
            at += len;
        }
        out.push(raw.get(at..).unwrap_or_default(), |i| origin(at + i));
        out.origins.push(origin(raw.len()));
        out
    }

    fn push(&mut self, bytes: &[u8], origin: impl Fn(usize) -> usize) {
        self.text.extend_from_slice(bytes);
        self.origins.extend((0..bytes.len()).map(origin));
    }
}

/// The character of the escape that a text begins with, and its length. What is none stands for itself.
fn escape(raw: &[u8]) -> (Option<char>, usize) {
    let plain = |c| (Some(c), 2);
    match raw.get(1) {
        Some(b'"') => plain('"'),
        Some(b'\\') => plain('\\'),
        Some(b'/') => plain('/'),
        Some(b'b') => plain('\u{8}'),
        Some(b'f') => plain('\u{c}'),
        Some(b'n') => plain('\n'),
        Some(b'r') => plain('\r'),
        Some(b't') => plain('\t'),
        Some(b'u') => match (unit(raw, 2), unit(raw, 8)) {
            (Some(high @ 0xD800..0xDC00), Some(low @ 0xDC00..0xE000)) if raw.get(6..8) == Some(b"\\u") => {
                (char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12)
            }
            // Half of a pair: no character, and no part of a value.
            (Some(half), _) => (Some(char::from_u32(half).unwrap_or(char::REPLACEMENT_CHARACTER)), 6),
            (None, _) => (None, 2),
        },
        // No escape: a backslash, and whatever follows is looked at by itself.
        _ => (None, 1),
    }
}

fn unit(raw: &[u8], at: usize) -> Option<u32> {
    let digits = raw.get(at..at + 4)?;
    digits.iter().try_fold(0, |n, d| Some(n << 4 | char::from(*d).to_digit(16)?))
}

/// The text with what JSON has to escape escaped, so many times.
pub(super) fn encode(text: &[u8], times: u8) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..times {
        let mut out = Vec::with_capacity(text.len());
        for byte in text {
            match byte {
                b'"' | b'\\' => out.extend([b'\\', byte]),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                control if control < 0x20 => out.extend(format!("\\u{control:04x}").into_bytes()),
                other => out.push(other),
            }
        }
        text = out;
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_decoded_and_every_byte_knows_where_it_was() {
        let decoded = Decoded::of(br"a\u0034\/\n\ud83d\ude00z", 10);
        assert_eq!(decoded.text, "a4/\n😀z".as_bytes());
        let origins: Vec<usize> = (0..=decoded.text.len()).map(|i| decoded.origin(i)).collect();
        assert_eq!(origins, [10, 11, 17, 19, 21, 21, 21, 21, 33, 34]);
        let twice = Decoded::of(br"\\u0034x", 0).again();
        assert_eq!((twice.text.as_slice(), twice.origin(0), twice.origin(1)), (b"4x".as_slice(), 0, 7));
        for odd in [r"\", r"\u", r"\u12", r"\x", r"\ud800", r"\ud800\u0041", r"\u12\u0034"] {
            let decoded = Decoded::of(odd.as_bytes(), 0);
            assert!(String::from_utf8(decoded.text).is_ok(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_what_json_does(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let decoded = Decoded::of(&json.as_bytes()[1..json.len() - 1], 1);
            prop_assert_eq!(decoded.text, text.as_bytes());
            let encoded = encode(text.as_bytes(), 1);
            let back: String = serde_json::from_slice(&[b"\"", encoded.as_slice(), b"\""].concat()).unwrap();
            prop_assert_eq!(back, text);
        }
    }
}
