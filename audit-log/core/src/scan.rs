//! Reads the characters of a record: keys, texts, numbers, lists, in their one canonical spelling.

use provost_types::{CallId, Phase};

use crate::{
    marks,
    quick::{call_id, escape_len, phase, short_number},
    view::ViewError,
};

/// A key as it stands in the record.
#[derive(Clone, Copy, Default)]
pub(crate) struct Key<'a> {
    pub bytes: &'a [u8],
}

impl Key<'_> {
    /// Strictly, by bytes. The first eight decide nearly always.
    pub(crate) fn precedes(&self, next: &Key<'_>) -> bool {
        let (before, after) = (first_eight(self.bytes), first_eight(next.bytes));
        before < after || (before == after && self.bytes < next.bytes)
    }
}

/// The first eight bytes as one number; shorter keys end in zeros, which stand in no key.
fn first_eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b)) << (8 * (8 - bytes.len())).min(63),
    }
}

/// A record, and how far it has been read.
pub(crate) struct Scan<'a, 'm> {
    pub bytes: &'a [u8],
    /// Of the whole record, see [`marks`].
    marks: &'m [u64],
    pub at: usize,
}

impl<'a, 'm> Scan<'a, 'm> {
    /// `bytes` are known to be UTF-8, and `marks` to be theirs.
    pub(crate) fn new(bytes: &'a [u8], marks: &'m [u64]) -> Self {
        Self { bytes, marks, at: 0 }
    }

    /// The bytes from here on.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Passes over what ends no text.
    #[inline]
    fn skip_plain(&mut self) {
        self.at = marks::next(self.marks, self.at, self.bytes.len()).max(self.at);
    }

    pub(crate) fn wrong(&self, what: &'static str) -> ViewError {
        ViewError { at: self.at, what }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }

    #[inline]
    pub(crate) fn byte(&mut self, wanted: u8, what: &'static str) -> Result<(), ViewError> {
        if self.next() == Some(wanted) { Ok(()) } else { Err(self.wrong(what)) }
    }

    /// A key: plain ASCII, no escapes.
    pub(crate) fn key(&mut self) -> Result<Key<'a>, ViewError> {
        self.byte(b'"', "a key was expected")?;
        let start = self.at;
        self.skip_plain();
        let bytes = self.bytes.get(start..self.at).unwrap_or_default();
        self.byte(b'"', "a key is not plain text")?;
        if !bytes.is_ascii() {
            return Err(self.wrong("a key is not plain ASCII"));
        }
        Ok(Key { bytes })
    }

    /// Passes over the rest of a text; stays before its quote.
    #[inline]
    pub(crate) fn skip_to_quote(&mut self) -> Result<(), ViewError> {
        loop {
            self.skip_plain();
            match self.bytes.get(self.at) {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.wrong("a control character stands in a text as it is")),
                None => return Err(self.wrong("the text does not end")),
            }
        }
    }

    /// A text between quotes, escapes left as they are.
    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'a [u8], ViewError> {
        let start = self.at + 1;
        self.skip_text()?;
        self.bytes.get(start..self.at - 1).ok_or(self.wrong("the text is cut"))
    }

    #[inline]
    fn skip_text(&mut self) -> Result<(), ViewError> {
        self.byte(b'"', "a text was expected")?;
        self.skip_to_quote()?;
        self.at += 1;
        Ok(())
    }

    /// The escapes that RFC 8785 writes, and no other spelling of the same character.
    fn escape(&mut self) -> Result<(), ViewError> {
        let len = escape_len(self.rest()).ok_or(self.wrong("an escape that the canonical form does not have"))?;
        self.at += len;
        Ok(())
    }

    #[inline]
    pub(crate) fn number(&mut self) -> Result<u64, ViewError> {
        match short_number(self.rest()) {
            Some((value, len)) => {
                self.at += len;
                Ok(value)
            }
            None => self.any_number(),
        }
    }

    #[cold]
    fn any_number(&mut self) -> Result<u64, ViewError> {
        let start = self.at;
        let mut value = 0u64;
        while let Some(digit) = self.bytes.get(self.at).filter(|b| b.is_ascii_digit()) {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u64::from(digit - b'0')))
                .ok_or(self.wrong("the number is too large"))?;
            self.at += 1;
        }
        let digits = self.at - start;
        if digits == 0 || (digits > 1 && self.bytes.get(start) == Some(&b'0')) {
            return Err(self.wrong("a whole number was expected"));
        }
        Ok(value)
    }

    pub(crate) fn decimal_text(&mut self) -> Result<u64, ViewError> {
        self.byte(b'"', "a decimal text was expected")?;
        let value = self.number()?;
        self.byte(b'"', "the decimal text does not end")?;
        Ok(value)
    }

    pub(crate) fn call_id(&mut self) -> Result<CallId, ViewError> {
        let wrong = self.wrong("call_id is not 32 hexadecimal digits");
        call_id(self.text()?).ok_or(wrong)
    }

    pub(crate) fn phase(&mut self) -> Result<Phase, ViewError> {
        phase(self.text()?).ok_or(self.wrong("unknown phase"))
    }

    #[inline]
    pub(crate) fn skip(&mut self) -> Result<(), ViewError> {
        match self.bytes.get(self.at) {
            Some(b'"') => self.skip_text(),
            Some(b'[') => self.skip_list(),
            _ => self.number().map(drop),
        }
    }

    fn skip_list(&mut self) -> Result<(), ViewError> {
        self.at += 1;
        loop {
            self.skip_text()?;
            match self.next() {
                Some(b',') => {}
                Some(b']') => return Ok(()),
                _ => return Err(self.wrong("`,` or `]` was expected")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_read_as_one_by_one(text in "[0-9]{0,24}[,\"/:a]?[0-9 ]{0,9}") {
            let (mut quick, mut plain) = (Scan::new(text.as_bytes(), &[]), Scan::new(text.as_bytes(), &[]));
            let (read, expect) = (quick.number(), plain.any_number());
            prop_assert_eq!((&read, quick.at), (&expect, plain.at));
        }

        #[test]
        fn keys_are_ordered_as_bytes(a in "[a-z._]{0,12}", b in "[a-z._]{0,12}") {
            let (first, second) = (Key { bytes: a.as_bytes() }, Key { bytes: b.as_bytes() });
            prop_assert_eq!(first.precedes(&second), a.as_bytes() < b.as_bytes());
        }
    }
}
