//! One pass over JSON text: grammar, bounds and duplicate keys.
//!
//! Purpose: everything that is decided about a payload later is decided on bytes that have exactly
//! one reading. Invariants: a text that passes has no object with two equal keys (compared after
//! decoding escapes), at any depth, and does not nest deeper than the bound, so recursion here and
//! in later parsers is bounded. Left out: values (numbers stay text, strings stay escaped).

use std::{borrow::Cow, ops::Range};

/// Bounds on one JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLimits {
    /// Longest text, in bytes.
    pub max_bytes: usize,
    /// Deepest nesting of objects and arrays.
    pub max_depth: u32,
}

impl JsonLimits {
    /// The deepest nesting ever accepted: below what `serde_json` reads (128).
    pub const MAX_DEPTH: u32 = 120;
    /// For what clients send: 4 MiB, 64 levels.
    pub const REQUEST: Self = Self { max_bytes: 4 * 1024 * 1024, max_depth: 64 };
    /// For what upstreams send: 64 MiB, 120 levels.
    pub const RESPONSE: Self = Self { max_bytes: 64 * 1024 * 1024, max_depth: Self::MAX_DEPTH };
}

/// Why a text was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8.
    #[error("the text is not valid UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("the text is not valid JSON at byte {0}")]
    Syntax(usize),
    /// Two equal keys in one object: readers would differ on which one counts.
    #[error("the key {key:?} stands twice in one object, near byte {at}")]
    DuplicateKey {
        /// The key, decoded, cut to 64 characters.
        key: String,
        /// Where the object ends.
        at: usize,
    },
    /// Too many levels.
    #[error("the text nests deeper than {0} levels")]
    TooDeep(u32),
    /// Too many bytes.
    #[error("the text is longer than {0} bytes")]
    TooLong(usize),
    /// Something else than an object where an object is required.
    #[error("the text is not a JSON object")]
    NotAnObject,
    /// Something else than an array where an array is required.
    #[error("the text is not a JSON array")]
    NotAnArray,
}

/// A key inside the scanned text, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeySpan {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether it holds escapes and must be decoded before it is compared.
    pub(crate) escaped: bool,
}

impl KeySpan {
    pub(crate) fn raw<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn decode<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if self.escaped { Cow::Owned(unescape(self.raw(text))) } else { Cow::Borrowed(self.raw(text)) }
    }
}

/// Objects with at most this many keys are compared pairwise, larger ones sorted.
const PAIRWISE_KEYS: usize = 12;

/// Walks one JSON text.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    max_depth: u32,
    keys: Vec<KeySpan>,
    /// Whether the text has passed before: members and items are then only found, not judged again.
    is_checked: bool,
}

impl<'a> Scanner<'a> {
    /// `text` is UTF-8.
    pub(crate) fn new(text: &'a [u8], max_depth: u32) -> Self {
        let max_depth = max_depth.min(JsonLimits::MAX_DEPTH);
        Self { text, at: 0, depth: 0, max_depth, keys: Vec::with_capacity(16), is_checked: false }
    }

    /// `text` is a part of one that passed. (One that did not gives a fault or wrong parts, and no worse.)
    pub(crate) fn of_checked(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0, max_depth: JsonLimits::MAX_DEPTH, keys: Vec::new(), is_checked: true }
    }

    /// Reads the whole text as one value.
    pub(crate) fn whole_value(&mut self) -> Result<Range<usize>, JsonFault> {
        self.space();
        let range = self.value()?;
        self.end()?;
        Ok(range)
    }

    /// Reads the whole text as one object and hands over its members in order.
    pub(crate) fn whole_object(&mut self, mut member: impl FnMut(KeySpan, Range<usize>)) -> Result<(), JsonFault> {
        self.space();
        if self.peek() != Some(b'{') {
            // Tell broken text from text of another shape.
            return Err(self.whole_value().err().unwrap_or(JsonFault::NotAnObject));
        }
        self.object(&mut member)?;
        self.end()
    }

    /// Reads the whole text as one array and hands over its items in order.
    pub(crate) fn whole_array(&mut self, mut item: impl FnMut(Range<usize>)) -> Result<(), JsonFault> {
        self.space();
        if self.peek() != Some(b'[') {
            return Err(self.whole_value().err().unwrap_or(JsonFault::NotAnArray));
        }
        self.array(&mut item)?;
        self.end()
    }

    /// Where the value of a member of the object is, by its decoded key; the first of that name. Reads no further.
    pub(crate) fn member(&mut self, key: &[u8]) -> Option<Range<usize>> {
        self.space();
        self.take(b'{').ok()?;
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return None;
            }
            let name = self.string().ok()?;
            self.space();
            self.take(b':').ok()?;
            self.space();
            let value = self.value().ok()?;
            if *name.decode(self.text) == *key {
                return Some(value);
            }
            self.space();
            self.take(b',').ok()?;
        }
    }

    fn end(&mut self) -> Result<(), JsonFault> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault()) }
    }

    fn fault(&self) -> JsonFault {
        JsonFault::Syntax(self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.fault())
        }
    }

    fn value(&mut self) -> Result<Range<usize>, JsonFault> {
        let start = self.at;
        if self.is_checked {
            self.pass()?;
            return Ok(start..self.at);
        }
        match self.peek() {
            Some(b'"') => {
                self.string()?;
            }
            Some(b'{') => self.object(&mut |_, _| {})?,
            Some(b'[') => self.array(&mut |_| {})?,
            Some(b't') => self.literal(b"true")?,
            Some(b'f') => self.literal(b"false")?,
            Some(b'n') => self.literal(b"null")?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return Err(self.fault()),
        }
        Ok(start..self.at)
    }

    /// Goes to the end of a value that was checked.
    fn pass(&mut self) -> Result<(), JsonFault> {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    if open == 0 {
                        return Ok(());
                    }
                    continue;
                }
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') if open > 1 => open -= 1,
                Some(b'}' | b']') if open == 1 => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) if open > 0 => {}
                _ => return self.pass_word(),
            }
            self.at += 1;
        }
    }

    /// Goes to the end of a number or literal that was checked.
    fn pass_word(&mut self) -> Result<(), JsonFault> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.fault()) }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), JsonFault> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.fault())
        }
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.fault()) }
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), JsonFault> {
        if self.depth >= self.max_depth {
            return Err(JsonFault::TooDeep(self.max_depth));
        }
        self.depth += 1;
        Ok(())
    }

    fn object(&mut self, member: &mut dyn FnMut(KeySpan, Range<usize>)) -> Result<(), JsonFault> {
        self.deeper()?;
        let first_key = self.keys.len();
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.fault());
                }
                let key = self.string()?;
                if !self.is_checked {
                    self.keys.push(key);
                }
                self.space();
                self.take(b':')?;
                self.space();
                let value = self.value()?;
                member(key, value);
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.fault()),
                }
                self.space();
            }
            self.distinct(first_key)?;
        }
        self.keys.truncate(first_key);
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self, item: &mut dyn FnMut(Range<usize>)) -> Result<(), JsonFault> {
        self.deeper()?;
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                let value = self.value()?;
                item(value);
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.fault()),
                }
                self.space();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string and returns what stands between its quotes.
    fn string(&mut self) -> Result<KeySpan, JsonFault> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = plain_until(self.text, self.at);
            match self.peek() {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(KeySpan { start, end, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.fault()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                        return Err(self.fault());
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.fault()),
        }
        Ok(())
    }

    /// Fails if two of the keys from `first` on are equal.
    fn distinct(&self, first: usize) -> Result<(), JsonFault> {
        let keys = &self.keys[first..];
        let twice = if keys.len() <= PAIRWISE_KEYS && keys.iter().all(|k| !k.escaped) {
            keys.iter().enumerate().find_map(|(i, key)| {
                let raw = key.raw(self.text);
                keys[..i].iter().any(|k| k.raw(self.text) == raw).then_some(Cow::Borrowed(raw))
            })
        } else {
            let mut decoded: Vec<Cow<'_, [u8]>> = keys.iter().map(|k| k.decode(self.text)).collect();
            decoded.sort_unstable();
            decoded.windows(2).find(|w| w[0] == w[1]).map(|w| w[0].clone())
        };
        match twice {
            None => Ok(()),
            Some(key) => Err(JsonFault::DuplicateKey {
                key: String::from_utf8_lossy(&key).chars().take(64).collect(),
                at: self.at,
            }),
        }
    }
}

/// The position of the next quote, backslash or control character (or the end), eight bytes a step.
pub(crate) fn plain_until(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let has_zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    while let Some(chunk) = text.get(at..at + 8) {
        let Ok(bytes) = <[u8; 8]>::try_from(chunk) else { break };
        let word = u64::from_le_bytes(bytes);
        // A byte is marked wrongly only above one that is marked rightly, and the lowest is what counts.
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let quote = has_zero(word ^ (ONES * u64::from(b'"')));
        let backslash = has_zero(word ^ (ONES * u64::from(b'\\')));
        let marks = control | quote | backslash;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

/// Decodes the escapes of a string's inside. A lone surrogate becomes bytes that no valid string
/// holds, so that it equals only itself.
pub(crate) fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'\\' {
            out.push(byte);
            at += 1;
            continue;
        }
        match raw.get(at + 1) {
            Some(b'u') => {
                let (unit, mut used) = (hex4(raw, at + 2), 6);
                let mut code = u32::from(unit);
                if (0xD800..0xDC00).contains(&unit) && raw.get(at + 6..at + 8) == Some(b"\\u") {
                    let low = hex4(raw, at + 8);
                    if (0xDC00..0xE000).contains(&low) {
                        code = 0x10000 + ((u32::from(unit) - 0xD800) << 10) + (u32::from(low) - 0xDC00);
                        used = 12;
                    }
                }
                match char::from_u32(code) {
                    Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => {
                        out.push(0xFF);
                        out.extend_from_slice(&unit.to_be_bytes());
                    }
                }
                at += used;
            }
            Some(other) => {
                out.push(match other {
                    b'b' => 0x08,
                    b'f' => 0x0C,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    plain => *plain,
                });
                at += 2;
            }
            None => at += 1,
        }
    }
    out
}

fn hex4(raw: &[u8], at: usize) -> u16 {
    raw.get(at..at + 4)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .unwrap_or_default()
}
