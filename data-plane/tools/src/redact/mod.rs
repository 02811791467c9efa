//! Credentials that an upstream says back, taken out before anybody sees them.
//!
//! Purpose: what we inject (headers, query, environment, tokens) is known to the upstream; an error page, a
//! debug tool or a line of its log may repeat it. Whatever comes in passes here before it is parsed, shown,
//! logged or recorded.
//! Invariants: a value is found as it is, in Base64 (at any offset), percent-encoded, in hexadecimal and
//! under JSON's escapes, also where JSON lies in a JSON text; what is taken out leaves JSON valid, or the
//! message is refused; a message without a find stays the bytes that it was.
//! Left out: values shorter than [`MIN_BYTES`], which are in every text; an upstream that wants to give a
//! credential away, which has other ways (half of it now, half of it later).

mod json;
mod needles;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use needles::Needle;

/// What stands in the place of a value.
pub(crate) const MARK: &str = "[redacted]";
/// The shortest value that is looked for.
const MIN_BYTES: usize = 4;

/// Finds the values that one plugin was given. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    /// The plugin's secrets.
    fixed: Arc<[Needle]>,
    /// The token of one request.
    token: Option<Arc<[Needle]>>,
}

impl Redactor {
    /// Looks for these values.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        Self { fixed: needles::of_all(values).into(), token: None }
    }

    /// Looks for this value too.
    pub(crate) fn and(&self, value: &str) -> Self {
        Self { fixed: self.fixed.clone(), token: Some(needles::of_all([value]).into()) }
    }

    fn is_idle(&self) -> bool {
        self.fixed.is_empty() && self.token.is_none()
    }

    fn needles(&self) -> impl Iterator<Item = &Needle> {
        self.fixed.iter().chain(self.token.iter().flat_map(|t| t.iter()))
    }

    /// Whether a value, or a form of it, is in these bytes.
    pub(crate) fn finds(&self, text: &[u8]) -> bool {
        self.needles().any(|n| n.is_in(text))
    }

    /// A JSON message without the values.
    pub(crate) fn message(&self, message: Bytes) -> Bytes {
        if self.is_idle() {
            return message;
        }
        // Most messages hold nothing that is found, and nothing that has to be decoded to know.
        if !message.iter().any(|b| matches!(b, b'\\' | b'%')) && !self.finds(&message) {
            return message;
        }
        json::redacted(self, &message).map_or(message, Bytes::from)
    }

    /// A text without the values.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.is_idle() {
            true => Cow::Borrowed(text),
            false => self.redact(text).map_or(Cow::Borrowed(text), Cow::Owned),
        }
    }

    /// Whether bytes that are no text hold one of the values.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        !self.is_idle() && self.finds(bytes)
    }

    /// `None`: nothing was found.
    fn redact(&self, text: &str) -> Option<String> {
        let written_over = self.write_over(text);
        let rest = written_over.as_deref().unwrap_or(text);
        // What is found only when decoded has no place in the text that could be written over.
        if self.is_hidden_in(rest) {
            return Some(MARK.to_owned());
        }
        written_over
    }

    fn write_over(&self, text: &str) -> Option<String> {
        let mut found: Vec<(usize, usize)> = self.needles().flat_map(|n| n.places(text.as_bytes())).collect();
        if found.is_empty() {
            return None;
        }
        found.sort_unstable();
        let (mut out, mut at) = (String::with_capacity(text.len()), 0);
        for (from, to) in found {
            if to <= at {
                continue;
            }
            if from >= at {
                // Values and their encodings are whole characters, so that both are boundaries.
                out.push_str(text.get(at..from).unwrap_or_default());
                out.push_str(MARK);
            }
            at = to;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        Some(out)
    }

    /// Whether a value is found once escapes are undone.
    fn is_hidden_in(&self, text: &str) -> bool {
        let unescaped = text.contains('\\').then(|| json::unescape(text));
        let percent = |text: &str| text.contains('%').then(|| needles::percent_decode(text.as_bytes()));
        unescaped.as_ref().is_some_and(|t| self.finds(t.as_bytes()))
            || percent(text).is_some_and(|t| self.finds(&t))
            || unescaped.as_deref().and_then(percent).is_some_and(|t| self.finds(&t))
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor(…)")
    }
}

#[cfg(test)]
mod tests;
