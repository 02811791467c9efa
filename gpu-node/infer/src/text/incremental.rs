//! Text from tokens, character by whole character.

use super::ChatText;

/// Turns tokens into text as they come; never emits half a character.
///
/// Bytes that can never become UTF-8 turn into U+FFFD, as decoding everything at once would do.
#[derive(Debug, Default)]
pub struct IncrementalText {
    pending: Vec<u8>,
    previous: Option<u32>,
    emitted: bool,
}

impl IncrementalText {
    /// A text that goes on with another: no space in front of its first word is dropped.
    pub(crate) fn going_on() -> Self {
        Self { emitted: true, ..Self::default() }
    }

    /// The text that is certain after `token`.
    pub fn push(&mut self, text: &ChatText, token: u32) -> String {
        let bytes = text.bytes().bytes(text.tokenizer(), self.previous, token);
        self.previous = Some(token);
        self.pending.extend_from_slice(&bytes);
        let mut out = self.take_whole();
        if !self.emitted && !out.is_empty() {
            self.emitted = true;
            if text.bytes().strips_first_space() && out.starts_with(' ') {
                out.remove(0);
            }
        }
        out
    }

    /// What is left at the end: half a character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn take_whole(&mut self) -> String {
        let mut out = String::new();
        let mut taken = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            // Only the last chunk can be a character that more bytes would complete.
            if chunks.peek().is_none() && is_incomplete(invalid) {
                break;
            }
            out.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
        self.pending.drain(..taken);
        out
    }
}

/// Whether bytes are the beginning of a character rather than an error.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
