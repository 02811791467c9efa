//! The forms in which a value may be said back.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use memchr::memmem::Finder;

use super::MIN_BYTES;

/// The shortest piece of Base64 that is looked for: shorter ones are in other words too.
const MIN_BASE64_CHARS: usize = 6;
/// The shortest line of a value of several lines that is looked for by itself.
const MIN_LINE_BYTES: usize = 16;

/// One form of a value.
pub(super) struct Needle {
    finder: Finder<'static>,
    /// Base64: whatever surrounds the piece belongs to it.
    spreads: bool,
}

impl Needle {
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        self.finder.find(text).is_some()
    }

    /// Where it is, as ranges.
    pub(super) fn places<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
        let length = self.finder.needle().len();
        self.finder.find_iter(text).map(move |at| match self.spreads {
            false => (at, at + length),
            true => {
                let before = text[..at].iter().rev().take_while(|b| is_base64(**b)).count();
                let after = text[at + length..].iter().take_while(|b| is_base64(**b)).count();
                (at - before, at + length + after)
            }
        })
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// All forms of all values.
pub(super) fn of_all<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Needle> {
    let mut forms: Vec<(Vec<u8>, bool)> = Vec::new();
    for value in values {
        let value = value.trim();
        add(&mut forms, value);
        if value.contains('\n') {
            // A key in PEM is often shown line by line.
            value
                .lines()
                .map(str::trim)
                .filter(|l| l.len() >= MIN_LINE_BYTES && !l.starts_with("-----"))
                .for_each(|line| add(&mut forms, line));
        }
    }
    forms.sort();
    // Of equal forms the one that does not spread comes first and stays.
    forms.dedup_by(|later, earlier| later.0 == earlier.0);
    forms.into_iter().map(|(form, spreads)| Needle { finder: Finder::new(&form).into_owned(), spreads }).collect()
}

fn add(forms: &mut Vec<(Vec<u8>, bool)>, value: &str) {
    if value.len() < MIN_BYTES {
        return;
    }
    let bytes = value.as_bytes();
    let escaped = serde_json::Value::from(value).to_string();
    let escaped = &escaped[1..escaped.len() - 1];
    let plain = [
        value.to_owned(),
        escaped.to_owned(),
        escaped.replace('/', "\\/"),
        percent_encode(bytes, true),
        percent_encode(bytes, false),
        percent_encode(bytes, true).replace("%20", "+"),
        hex::encode(bytes),
        hex::encode_upper(bytes),
    ];
    forms.extend(plain.into_iter().map(|form| (form.into_bytes(), false)));
    for offset in 0..3 {
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let piece = base64_piece(engine, bytes, offset);
            if piece.len() >= MIN_BASE64_CHARS {
                forms.push((piece.into_bytes(), true));
            }
        }
    }
}

/// What is the same in every Base64 text that holds the value `offset` bytes (modulo 3) after its begin.
fn base64_piece(engine: &impl Engine, value: &[u8], offset: usize) -> String {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(value);
    let whole = engine.encode(&padded);
    // The characters that also depend on what comes before, and on what comes after.
    let from = [0, 2, 3][offset];
    let to = padded.len() * 8 / 6;
    whole.get(from..to).unwrap_or_default().to_owned()
}

fn percent_encode(bytes: &[u8], upper: bool) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(b) => out.push(char::from(*b)),
            b if upper => out.push_str(&format!("%{b:02X}")),
            b => out.push_str(&format!("%{b:02x}")),
        }
    }
    out
}

/// What is percent-encoded as bytes, and `+` as it is.
pub(super) fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}
