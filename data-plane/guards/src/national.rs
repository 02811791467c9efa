//! National identity and tax numbers.
//!
//! Those whose check is strong (a letter of 23 or 26) stand for themselves. Where digits alone prove
//! little, the number must be written in its official groups or stand after a word that names it.

use crate::{
    bytes::{ALNUM, is_at},
    context::says,
    finding::Finding,
    kind::Kind,
    numbers::Groups,
};

const SSN_WORDS: [&str; 4] = ["ssn", "social security", "social_security", "socialsecurity"];
const BSN_WORDS: [&str; 5] = ["bsn", "burgerservice", "sofinummer", "sofi", "citizen service"];
const TAX_WORDS: [&str; 8] = ["steuer", "idnr", "tin", "tax_id", "taxid", "tax id", "tax number", "tax_number"];

/// Social Security Administration, POMS RM 10201.035: which numbers are never assigned.
pub(crate) fn us_ssn(buf: &[u8], run: &Groups) -> Option<Finding> {
    let (groups, named) = match run.shape::<3>() {
        [3, 2, 4] if run.separated_by(3, b"-") => (3, false),
        [3, 2, 4] if run.separated_by(3, b" ") => (3, true),
        [9, ..] => (1, true),
        _ => return None,
    };
    let (digits, end) = run.take(buf, groups)?;
    let number = |part: &[u8]| part.iter().fold(0u32, |n, d| n * 10 + u32::from(*d));
    let area = number(&digits[..3]);
    let assigned = !matches!(area, 0 | 666 | 900..) && number(&digits[3..5]) != 0 && number(&digits[5..]) != 0;
    (assigned && (!named || says(buf, run.start, &SSN_WORDS))).then(|| Finding::new(Kind::UsSsn, run.start, end))
}

/// The eleven-test: weights 9 to 2, the last digit counts -1.
pub(crate) fn nl_bsn(buf: &[u8], run: &Groups) -> Option<Finding> {
    let groups = match run.shape::<3>() {
        [9, ..] => 1,
        [3, 3, 3] if run.separated_by(3, b" .-") => 3,
        [4, 2, 3] if run.separated_by(3, b" .") => 3,
        _ => return None,
    };
    let (digits, end) = run.take(buf, groups)?;
    let sum: i32 = digits.iter().zip([9, 8, 7, 6, 5, 4, 3, 2, -1]).map(|(d, w)| i32::from(*d) * w).sum();
    let valid = sum % 11 == 0 && digits.iter().any(|d| *d != 0);
    (valid && says(buf, run.start, &BSN_WORDS)).then(|| Finding::new(Kind::NlBsn, run.start, end))
}

/// Eleven digits: among the first ten exactly one occurs two or three times; ISO 7064 mod 11,10.
pub(crate) fn de_tax_id(buf: &[u8], run: &Groups) -> Option<Finding> {
    let (groups, named) = match run.shape::<4>() {
        [11, ..] => (1, true),
        [2, 3, 3, 3] if run.separated_by(4, b" ") => (4, false),
        _ => return None,
    };
    let (digits, end) = run.take(buf, groups)?;
    let mut times = [0u8; 10];
    for d in &digits[..10] {
        times[usize::from(*d)] += 1;
    }
    let repeated = times.iter().filter(|n| **n > 1).count() == 1 && times.iter().all(|n| *n < 4);
    let product = digits[..10].iter().fold(10u32, |product, d| {
        let sum = (u32::from(*d) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    let valid = digits[0] != 0 && repeated && (11 - product) % 10 == u32::from(digits[10]);
    (valid && (!named || says(buf, run.start, &TAX_WORDS))).then(|| Finding::new(Kind::DeTaxId, run.start, end))
}

/// The letter of a Spanish number: remainder modulo 23.
const DNI_LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";

/// Eight digits and a letter, with or without a dash between.
pub(crate) fn es_dni(buf: &[u8], start: usize) -> Option<Finding> {
    let digits = buf.get(start..start + 8)?;
    spanish(buf, start, 0, digits, start + 8)
}

/// X, Y or Z for the first digit, seven digits, a letter.
pub(crate) fn es_nie(buf: &[u8], start: usize) -> Option<Finding> {
    let first = buf.get(start)?.checked_sub(b'X').filter(|n| *n < 3)?;
    let digits = buf.get(start + 1..start + 8)?;
    spanish(buf, start, u32::from(first), digits, start + 8)
}

fn spanish(buf: &[u8], start: usize, first: u32, digits: &[u8], after: usize) -> Option<Finding> {
    let number = digits.iter().try_fold(first, |n, d| d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0')))?;
    let at = after + usize::from(buf.get(after) == Some(&b'-'));
    let right = buf.get(at) == Some(&DNI_LETTERS[number as usize % 23]);
    (right && !is_at(buf, at + 1, ALNUM)).then(|| Finding::new(Kind::EsDni, start, at + 1))
}

/// What a character at an odd place counts (the first place is odd); digits count as A to J.
const ODD: [u8; 26] = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];

/// Sixteen characters, the last one a check letter (decree of 23 December 1976). Digits may be
/// replaced by letters where two people would get the same code.
pub(crate) fn it_fiscal_code(buf: &[u8], start: usize) -> Option<Finding> {
    let code: &[u8; 16] = buf.get(start..)?.first_chunk()?;
    if is_at(buf, start + 16, ALNUM) {
        return None;
    }
    let fits = code.iter().enumerate().all(|(i, c)| match i {
        6 | 7 | 9 | 10 | 12..=14 => c.is_ascii_digit() || b"LMNPQRSTUV".contains(c),
        8 => b"ABCDEHLMPRST".contains(c),
        _ => c.is_ascii_uppercase(),
    });
    if !fits {
        return None;
    }
    let sum: u32 = code[..15]
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let value = if c.is_ascii_digit() { c - b'0' } else { c - b'A' };
            u32::from(if i % 2 == 0 { ODD[usize::from(value)] } else { value })
        })
        .sum();
    (sum % 26 == u32::from(code[15] - b'A')).then(|| Finding::new(Kind::ItFiscalCode, start, start + 16))
}
