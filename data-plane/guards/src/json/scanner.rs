//! Steps over JSON that is known to be valid. On anything else it comes to an end, and no further.

use std::ops::Range;

use memchr::memchr2;

/// A place in a JSON text.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is no space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Steps over the next byte if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Steps over a string; what stands between its quotes.
    pub(super) fn string(&mut self) -> Range<usize> {
        let start = (self.at + 1).min(self.text.len());
        self.at = start;
        while let Some(found) = memchr2(b'"', b'\\', &self.text[self.at..]) {
            let at = self.at + found;
            if self.text[at] == b'"' {
                self.at = at + 1;
                return start..at;
            }
            self.at = (at + 2).min(self.text.len());
        }
        self.at = self.text.len();
        start..self.at
    }

    /// Steps over a number or a word.
    pub(super) fn scalar(&mut self) -> Range<usize> {
        let start = self.at;
        let rest = &self.text[start..];
        let ends = |b: &u8| matches!(b, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
        // At least one byte, so that whoever calls in a loop comes to the end.
        self.at = start + rest.iter().position(ends).unwrap_or(rest.len()).max(usize::from(!rest.is_empty()));
        start..self.at
    }

    /// Steps over one value.
    pub(super) fn value(&mut self) -> Range<usize> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => drop(self.string()),
            Some(b'{' | b'[') => {
                let mut depth = 0usize;
                while let Some(next) = self.peek() {
                    match next {
                        b'"' => {
                            self.string();
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            Some(_) => drop(self.scalar()),
            None => {}
        }
        start..self.at
    }
}
