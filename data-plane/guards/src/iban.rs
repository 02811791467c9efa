//! International bank account numbers.
//!
//! The length must be that of the country (SWIFT's registry, release 99), the remainder modulo 97 must
//! be 1 (ISO 13616-1). Written in one piece or in groups of four, in capitals.

use crate::{
    bytes::{ALNUM, UPPER_ALNUM, is, is_at},
    finding::Finding,
    kind::Kind,
};

/// Country and length, by country.
const LENGTHS: [(&[u8; 2], u8); 89] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// The IBAN whose country is at `start`.
pub(crate) fn find(buf: &[u8], start: usize) -> Option<Finding> {
    let country = buf.get(start..start + 2)?;
    let at = LENGTHS.binary_search_by(|(c, _)| c.as_slice().cmp(country)).ok()?;
    let length = usize::from(LENGTHS[at].1);

    let grouped = buf.get(start + 4) == Some(&b' ');
    let mut text = [0u8; 34];
    let (mut at, mut len) = (start, 0);
    while len < length {
        if grouped && len > 0 && len % 4 == 0 {
            if buf.get(at) != Some(&b' ') {
                return None;
            }
            at += 1;
        }
        text[len] = *buf.get(at).filter(|b| is(**b, UPPER_ALNUM))?;
        at += 1;
        len += 1;
    }
    let checks = text[2].is_ascii_digit() && text[3].is_ascii_digit() && mod_97(&text[..length]) == 1;
    (checks && !is_at(buf, at, ALNUM)).then(|| Finding::new(Kind::Iban, start, at))
}

/// The first four characters go to the end, letters count as 10 to 35.
fn mod_97(text: &[u8]) -> u32 {
    text[4..].iter().chain(&text[..4]).fold(0, |n, c| match c {
        b'0'..=b'9' => (n * 10 + u32::from(c - b'0')) % 97,
        _ => (n * 100 + u32::from(c - b'A') + 10) % 97,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_sorted_and_fit() {
        assert!(LENGTHS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(LENGTHS.iter().all(|(_, len)| (15..=34).contains(len)));
    }
}
