//! Phone numbers.
//!
//! Three forms: `+` and 8 to 15 digits (E.164), the North American `(415) 555-0132` and
//! `415-555-0132`, and anything of 7 to 15 digits after a word such as `phone`.

use crate::{bytes::starts_word, context::says, finding::Finding, kind::Kind, numbers::Groups};

const WORDS: [&str; 9] = ["phone", "mobile", "telefon", "whatsapp", "msisdn", "fax", "tel", "mobil", "telefoon"];

/// Most digits of an E.164 number.
const DIGITS_MAX: usize = 15;

pub(crate) fn find(buf: &[u8], run: &Groups) -> Option<Finding> {
    let before = |back: usize| run.start.checked_sub(back).and_then(|at| buf.get(at)).copied();
    match before(1) {
        Some(b'+') if starts_word(buf, run.start - 1) && !matches!(before(2), Some(b'+' | b'/')) => {
            international(buf, run)
        }
        Some(b'+') => None,
        first => north_american(buf, run, first == Some(b'(')).or_else(|| after_a_word(buf, run)),
    }
}

fn international(buf: &[u8], run: &Groups) -> Option<Finding> {
    let all = whole_groups(run);
    let digits = run.digits(all);
    // Country code 1 has ten digits after it, and what follows them is something else.
    let (least, most) = if digits[0] == 1 { (11, 11) } else { (8, DIGITS_MAX) };
    (1..=all).rev().filter(|n| (least..=most).contains(&run.digits(*n).len())).find_map(|groups| {
        let (digits, end) = run.take(buf, groups)?;
        let valid = digits[0] != 0 && (digits[0] != 1 || digits[1] > 1);
        valid.then(|| Finding::new(Kind::Phone, run.start - 1, end))
    })
}

/// A North American number: three, three and four digits with dashes or dots between, or the first group in
/// parentheses.
fn north_american(buf: &[u8], run: &Groups, parenthesis: bool) -> Option<Finding> {
    let (first, last) = match run.shape::<4>() {
        [3, 3, 4, _] => (0, 3),
        [1, 3, 3, 4] if run.digits(1) == [1] => (1, 4),
        _ => return None,
    };
    let separators = (run.separator(first + 1), run.separator(first + 2));
    let area_in_parentheses = match separators {
        (b'-', b'-') | (b'.', b'.') => false,
        (b')', b'-' | b' ' | b'.') if parenthesis || first == 1 => parenthesis,
        _ => return None,
    };
    let (digits, end) = run.take(buf, last)?;
    let valid = digits[first] > 1 && digits[first + 3] > 1;
    valid.then(|| Finding::new(Kind::Phone, run.start - usize::from(area_in_parentheses), end))
}

fn after_a_word(buf: &[u8], run: &Groups) -> Option<Finding> {
    let groups = whole_groups(run);
    let (digits, end) = run.take(buf, groups)?;
    let fits = (7..=DIGITS_MAX).contains(&digits.len()) && !is_date(run);
    (fits && says(buf, run.start, &WORDS)).then(|| Finding::new(Kind::Phone, run.start, end))
}

/// How many groups belong to the number: those with at most fifteen digits together.
fn whole_groups(run: &Groups) -> usize {
    (1..=run.count()).rev().find(|n| run.digits(*n).len() <= DIGITS_MAX).unwrap_or(1)
}

fn is_date(run: &Groups) -> bool {
    matches!(run.shape::<4>(), [4, 2, 2, _] | [2, 2, 4, _]) && matches!(run.separator(1), b'-' | b'.' | b'/')
}
