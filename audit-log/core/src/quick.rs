//! Values as they nearly always are, read without a word on what is wrong with others: that is
//! [`crate::scan`]'s business, which is asked where these say `None`.

use provost_types::{CallId, Phase};

use crate::{hash::decode_hex, marks};

/// The phase of this name.
pub(crate) fn phase(text: &[u8]) -> Option<Phase> {
    match text {
        b"intent" => Some(Phase::Intent),
        b"outcome" => Some(Phase::Outcome),
        b"denied" => Some(Phase::Denied),
        b"event" => Some(Phase::Event),
        _ => None,
    }
}

/// An id of 32 hexadecimal digits.
pub(crate) fn call_id(text: &[u8]) -> Option<CallId> {
    let mut bytes = [0; 16];
    decode_hex(text, &mut bytes)?;
    Some(CallId(u128::from_be_bytes(bytes)))
}

/// The length of the escape that the bytes begin with.
pub(crate) fn escape_len(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'\\', b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(2),
        [b'\\', b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..] => Some(6),
        [b'\\', b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => Some(6),
        _ => None,
    }
}

/// Where the quote stands that ends the text which goes on at `at`; `None` for one that is not well
/// formed.
#[inline]
pub(crate) fn text_end(bytes: &[u8], marks: &[u64], at: usize) -> Option<usize> {
    let mut end = marks::next(marks, at, bytes.len());
    while *bytes.get(end)? != b'"' {
        let len = escape_len(bytes.get(end..)?)?;
        end = marks::next(marks, end + len, bytes.len());
    }
    Some(end)
}

/// Where the list of texts ends that begins at `at`; `None` for one that is not well formed.
#[inline]
pub(crate) fn list_end(bytes: &[u8], marks: &[u64], mut at: usize) -> Option<usize> {
    loop {
        at = match bytes.get(at + 1) {
            Some(b'"') => text_end(bytes, marks, at + 2)? + 1,
            _ => return None,
        };
        match bytes.get(at)? {
            b',' => {}
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// A number of one to 19 digits and its length, eight digits at a time; `None` where it is not so, or
/// too near to the record's end to say.
#[inline]
pub(crate) fn short_number(rest: &[u8]) -> Option<(u64, usize)> {
    let (mut number, mut len) = (0u64, 0);
    loop {
        let word = u64::from_le_bytes(*rest.get(len..)?.first_chunk::<8>()?);
        let more = digits(word);
        if more > 0 {
            number = number.wrapping_mul(POWERS[more as usize]).wrapping_add(value(word, more));
            len += more as usize;
        }
        if more < 8 {
            break;
        }
    }
    // No overflow below 20 digits.
    let plain = (1..20).contains(&len) && (len == 1 || rest.first() != Some(&b'0'));
    plain.then_some((number, len))
}

/// How many decimal digits the eight bytes begin with.
#[inline]
fn digits(word: u64) -> u32 {
    const ONES: u64 = u64::MAX / 255;
    // Zero to nine where a digit was. The lowest mark is exact; those above it may be carries.
    let values = word ^ (ONES * b'0' as u64);
    let others = (values | values.wrapping_add(ONES * 0x76)) & (ONES * 0x80);
    others.trailing_zeros() / 8
}

/// Of ten.
const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The number that the first `len` digits of the eight bytes write; `len` is 1 to 8.
#[inline]
fn value(word: u64, len: u32) -> u64 {
    // Zeros before it; then two digits, four, eight are brought together.
    let word = (word & (u64::MAX / 255 * 0x0f)) << (64 - 8 * len);
    let word = (word * 10 + (word >> 8)) & 0x00ff_00ff_00ff_00ff;
    let word = (word * 100 + (word >> 16)) & 0x0000_ffff_0000_ffff;
    (word * 10_000 + (word >> 32)) & 0xffff_ffff
}
