//! JSON kept as the bytes it came as.

use std::{borrow::Cow, fmt, ops::Range};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::scan::{JsonFault, JsonLimits, Scanner, plain_until, unescape};

/// One JSON value as UTF-8 text, shared without copying. Whoever makes one from outside input has
/// checked it (see `Envelope`): holders rely on it being valid JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Bytes);

impl RawJson {
    /// `{}`.
    pub const EMPTY_OBJECT: Self = Self(Bytes::from_static(b"{}"));
    /// `null`.
    pub const NULL: Self = Self(Bytes::from_static(b"null"));

    /// Takes text that the caller knows to be valid JSON.
    pub fn from_checked(bytes: Bytes) -> Self {
        debug_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok());
        Self(bytes)
    }

    /// Checks text from outside: UTF-8, grammar, size, depth, no duplicate keys. Surrounding space
    /// is cut off.
    pub fn check(bytes: Bytes, limits: &JsonLimits) -> Result<Self, JsonFault> {
        if bytes.len() > limits.max_bytes {
            return Err(JsonFault::TooLong(limits.max_bytes));
        }
        if std::str::from_utf8(&bytes).is_err() {
            return Err(JsonFault::NotUtf8);
        }
        let range = Scanner::new(&bytes, limits.max_depth).whole_value()?;
        Ok(Self(bytes.slice(range)))
    }

    /// A string value.
    pub fn from_text(text: &str) -> Self {
        Self(quoted(text))
    }

    /// A part of a text that was checked, itself a JSON value.
    pub(crate) fn part(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// A part of the text that is itself a JSON value.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        Self(self.0.slice(range))
    }

    /// The decoded text if this is a JSON string (without lone surrogates).
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        text_of(self.as_str())
    }

    /// Whether this is a JSON object.
    pub fn is_object(&self) -> bool {
        self.0.first() == Some(&b'{')
    }

    /// Whether this is `true`.
    pub fn is_true(&self) -> bool {
        &self.0[..] == b"true"
    }

    /// Writes a value as JSON.
    pub fn from_value<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|v| Self(Bytes::from(v)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked when made; an empty text is the only possible fallback and parses as nothing.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A member of this object, found without taking the others apart. `None`: it has none of that name, or is no object.
    pub fn member(&self, key: &str) -> Option<Self> {
        Scanner::of_checked(&self.0).member(key.as_bytes()).map(|range| self.slice(range))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The shared bytes.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Reads it as a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }
}

/// Text as a JSON string.
pub(crate) fn quoted(text: &str) -> Bytes {
    // As long as most are in the end, so that nothing is copied again.
    let mut out = Vec::with_capacity(text.len() + 2);
    if is_plain(text.as_bytes()) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return Bytes::from(out);
    }
    // Text always serialises, and memory takes it.
    let _ = serde_json::to_writer(&mut out, text);
    Bytes::from(out)
}

/// Whether a text stands in JSON as it is: nothing of it has to be escaped (RFC 8259, section 7).
fn is_plain(text: &[u8]) -> bool {
    plain_until(text, 0) == text.len()
}

/// The decoded text of a JSON string (without lone surrogates).
pub(crate) fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    String::from_utf8(unescape(inner.as_bytes())).ok().map(Cow::Owned)
}

impl From<serde_json::Value> for RawJson {
    fn from(value: serde_json::Value) -> Self {
        // Written at once and not through a formatter, which is several times slower; a value always serialises.
        Self(serde_json::to_vec(&value).map_or(Bytes::from_static(b"null"), Bytes::from))
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawJson({} bytes)", self.0.len())
    }
}
