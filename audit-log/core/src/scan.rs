//! Reads the characters of a record: keys, texts, numbers, lists, in their one canonical spelling.

use provost_types::{CallId, Phase};

use crate::{hash::decode_hex, view::ViewError};

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

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES * 0x80;

/// How many bytes precede the first quote, backslash or control character; and whether any of
/// them is not ASCII.
///
/// Eight bytes at a time: texts are short, so a call of a general search would cost more than the
/// search. In each word the lowest mark is exact; marks above it may be carries, and are not used.
#[inline]
fn plain_len(bytes: &[u8]) -> (usize, bool) {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut at, mut high) = (0, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
        let quotes = quote.wrapping_sub(ONES) & !quote;
        let backslashes = backslash.wrapping_sub(ONES) & !backslash;
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let hit = (quotes | backslashes | controls) & HIGHS;
        if hit != 0 {
            let len = hit.trailing_zeros() / 8;
            high |= word & ((1 << (8 * len)) - 1);
            return (at + len as usize, high & HIGHS != 0);
        }
        high |= word;
        at += 8;
    }
    let plain = rest.iter().take_while(|b| **b >= 0x20 && **b != b'"' && **b != b'\\');
    let len = plain.inspect(|b| high |= u64::from(**b)).count();
    (at + len, high & HIGHS != 0)
}

/// A record, and how far it has been read.
pub(crate) struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    /// The bytes from here on.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn wrong(&self, what: &'static str) -> ViewError {
        ViewError { at: self.at, what }
    }

    pub(crate) fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }

    pub(crate) fn byte(&mut self, wanted: u8, what: &'static str) -> Result<(), ViewError> {
        if self.next() == Some(wanted) { Ok(()) } else { Err(self.wrong(what)) }
    }

    /// A key: plain ASCII, no escapes.
    pub(crate) fn key(&mut self) -> Result<Key<'a>, ViewError> {
        self.byte(b'"', "a key was expected")?;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (len, high) = plain_len(rest);
        self.at += len;
        self.byte(b'"', "a key is not plain text")?;
        if high {
            return Err(self.wrong("a key is not plain ASCII"));
        }
        Ok(Key { bytes: rest.get(..len).unwrap_or_default() })
    }

    /// A text between quotes, escapes left as they are.
    pub(crate) fn text(&mut self) -> Result<&'a str, ViewError> {
        let start = self.at + 1;
        self.skip_text()?;
        self.text.get(start..self.at - 1).ok_or(self.wrong("the text is cut"))
    }

    fn skip_text(&mut self) -> Result<(), ViewError> {
        self.byte(b'"', "a text was expected")?;
        loop {
            self.at += plain_len(self.bytes.get(self.at..).unwrap_or_default()).0;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.wrong("a control character stands in a text as it is")),
                None => return Err(self.wrong("the text does not end")),
            }
        }
    }

    /// The escapes that RFC 8785 writes, and no other spelling of the same character.
    fn escape(&mut self) -> Result<(), ViewError> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let len = match rest {
            [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..] => 6,
            [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return Err(self.wrong("an escape that the canonical form does not have")),
        };
        self.at += len;
        Ok(())
    }

    pub(crate) fn number(&mut self) -> Result<u64, ViewError> {
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
        let mut bytes = [0; 16];
        decode_hex(self.text()?.as_bytes(), &mut bytes).ok_or(wrong)?;
        Ok(CallId(u128::from_be_bytes(bytes)))
    }

    pub(crate) fn phase(&mut self) -> Result<Phase, ViewError> {
        match self.text()? {
            "intent" => Ok(Phase::Intent),
            "outcome" => Ok(Phase::Outcome),
            "denied" => Ok(Phase::Denied),
            "event" => Ok(Phase::Event),
            _ => Err(self.wrong("unknown phase")),
        }
    }

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
        fn plain_runs_are_measured(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
            let expect = bytes.iter().position(special).unwrap_or(bytes.len());
            let high = !bytes[..expect].is_ascii();
            prop_assert_eq!(plain_len(&bytes), (expect, high));
        }

        #[test]
        fn keys_are_ordered_as_bytes(a in "[a-z._]{0,12}", b in "[a-z._]{0,12}") {
            let (first, second) = (Key { bytes: a.as_bytes() }, Key { bytes: b.as_bytes() });
            prop_assert_eq!(first.precedes(&second), a.as_bytes() < b.as_bytes());
        }
    }
}
