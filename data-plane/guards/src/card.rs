//! Payment card numbers.
//!
//! A number is a card if its issuer range and length belong together (ISO/IEC 7812 and the networks'
//! own lists), its Luhn digit is right, and it is written as cards are: in one piece, or in the groups
//! printed on them, with spaces, dashes, dots or slashes between; `spread` knows others. One order number
//! in some hundred passes; the range and the grouping keep it there.

use crate::{finding::Finding, kind::Kind, numbers::Groups};

/// How cards print their digits.
pub(crate) const LAYOUTS: [&[usize]; 4] = [&[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4]];

pub(crate) fn find(buf: &[u8], run: &Groups) -> Option<Finding> {
    let shape = run.shape::<5>();
    let whole = |groups: usize| {
        let (digits, end) = run.take(buf, groups)?;
        card_of(digits, run.start, end)
    };
    if shape[0] != 4 {
        return if shape[0] >= 13 { whole(1) } else { None };
    }
    LAYOUTS
        .iter()
        .filter(|l| shape.starts_with(l) && run.separated_by(l.len(), b" -./"))
        .find_map(|layout| whole(layout.len()))
}

/// The card of these digits, which stands there.
pub(crate) fn card_of(digits: &[u8], start: usize, end: usize) -> Option<Finding> {
    (known_issuer(digits) && luhn(digits)).then(|| Finding::new(Kind::Card, start, end))
}

fn known_issuer(digits: &[u8]) -> bool {
    let six = digits.iter().take(6).fold(0u32, |n, d| n * 10 + u32::from(*d));
    let len = digits.len();
    match six {
        // Visa.
        400_000..=499_999 => matches!(len, 13 | 16 | 19),
        // Mastercard.
        510_000..=559_999 | 222_100..=272_099 => len == 16,
        // American Express.
        340_000..=349_999 | 370_000..=379_999 => len == 15,
        // Diners Club.
        300_000..=305_999 | 309_500..=309_599 | 360_000..=369_999 | 380_000..=399_999 => matches!(len, 14 | 16),
        // JCB.
        352_800..=358_999 => (16..=19).contains(&len),
        // Discover, UnionPay.
        601_100..=601_199 | 644_000..=659_999 | 620_000..=629_999 => (16..=19).contains(&len),
        // Maestro.
        501_800..=501_899
        | 502_000..=502_099
        | 503_800..=503_899
        | 589_300..=589_399
        | 630_400..=630_499
        | 675_900..=675_999
        | 676_100..=676_399 => (16..=19).contains(&len),
        _ => false,
    }
}

/// ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| match (i % 2, u32::from(*d)) {
            (0, d) => d,
            (_, d) if d > 4 => 2 * d - 9,
            (_, d) => 2 * d,
        })
        .sum();
    sum.is_multiple_of(10)
}
