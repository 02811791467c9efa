//! Classes of bytes, and where words begin and end.
//!
//! All tables are for ASCII: a byte of a longer UTF-8 sequence is in no class and ends every word.

/// `A-Z a-z 0-9`.
pub(crate) const ALNUM: u8 = 1;
/// `A-Z 0-9`.
pub(crate) const UPPER_ALNUM: u8 = 1 << 1;
/// `A-Z a-z 0-9 _ -`: base64url.
pub(crate) const BASE64_URL: u8 = 1 << 2;
/// [`BASE64_URL`] and the dots between the parts of a token.
pub(crate) const DOTTED: u8 = 1 << 3;
/// The part of an e-mail address before the `@`, as people write it.
pub(crate) const LOCAL: u8 = 1 << 4;
/// The part of an e-mail address after the `@`.
pub(crate) const DOMAIN: u8 = 1 << 5;
/// What stands between the markers of an armoured key, raw or in a JSON string.
pub(crate) const ARMOUR: u8 = 1 << 6;
/// What stands there if nothing else follows the key: no blanks and no words.
pub(crate) const BASE64_LINES: u8 = 1 << 7;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut b = 0usize;
    while b < 128 {
        let c = b as u8;
        let mut class = 0;
        if c.is_ascii_alphanumeric() {
            class |= ALNUM | BASE64_URL | DOTTED | LOCAL | DOMAIN | ARMOUR | BASE64_LINES;
        }
        if c.is_ascii_uppercase() || c.is_ascii_digit() {
            class |= UPPER_ALNUM;
        }
        class |= match c {
            b'-' => BASE64_URL | DOTTED | LOCAL | DOMAIN | ARMOUR,
            b'_' => BASE64_URL | DOTTED | LOCAL,
            b'.' => DOTTED | LOCAL | DOMAIN | ARMOUR,
            b'%' => LOCAL,
            b'+' => LOCAL | ARMOUR | BASE64_LINES,
            b'/' | b'=' | b'\r' | b'\n' | b'\\' => ARMOUR | BASE64_LINES,
            b' ' | b'\t' | b':' | b',' | b'(' | b')' => ARMOUR,
            _ => 0,
        };
        table[b] = class;
        b += 1;
    }
    table
}

pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether the byte at `at` exists and is in the class.
pub(crate) fn is_at(buf: &[u8], at: usize, class: u8) -> bool {
    buf.get(at).is_some_and(|b| is(*b, class))
}

/// Where the run of bytes of a class that starts at `from` ends, looking no further than `limit`.
pub(crate) fn run_end(buf: &[u8], from: usize, limit: usize, class: u8) -> usize {
    let limit = limit.min(buf.len());
    let run = buf.get(from..limit).unwrap_or_default();
    from + run.iter().position(|b| !is(*b, class)).unwrap_or(run.len())
}

/// Where the run of bytes of a class that ends before `end` starts, looking no further back than
/// `max` bytes and `floor`. The letters of a JSON escape before it (`\n`, `\u00a0`) are not part of it.
pub(crate) fn run_start(buf: &[u8], end: usize, max: usize, floor: usize, class: u8) -> usize {
    let floor = end.saturating_sub(max).max(floor);
    let run = buf.get(floor..end).unwrap_or_default();
    let start = floor + run.iter().rposition(|b| !is(*b, class)).map_or(0, |at| at + 1);
    start + escape_rest(buf, start)
}

/// How many bytes from `at` on belong to a JSON escape that the backslash before them began.
fn escape_rest(buf: &[u8], at: usize) -> usize {
    if at == 0 || buf.get(at - 1) != Some(&b'\\') {
        return 0;
    }
    match buf.get(at) {
        Some(b'n' | b'r' | b't' | b'b' | b'f') => 1,
        Some(b'u') => 5,
        _ => 0,
    }
}

/// Whether a value may start at `at`: what is before it does not belong to the same word.
pub(crate) fn starts_word(buf: &[u8], at: usize) -> bool {
    if at == 0 || !is(buf[at - 1], ALNUM) {
        return true;
    }
    // The letters before may be an escape: `\n` or `\u00a0`.
    (at >= 2 && escape_rest(buf, at - 1) == 1) || (at >= 6 && escape_rest(buf, at - 5) == 5)
}

/// The high bit of each byte that is no digit. With the bits of '0' removed a digit is below ten.
fn not_digits(word: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    let x = u64::from_le_bytes(word) ^ (ONES * b'0' as u64);
    (((x & !HIGH) + ONES * (0x80 - 10)) | x) & HIGH
}

/// The next digit in `buf[from..]`, eight bytes at a time.
pub(crate) fn next_digit(buf: &[u8], from: usize) -> Option<usize> {
    let mut rest = buf.get(from..)?;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let not = not_digits(*word);
        if not != 0x8080_8080_8080_8080 {
            return Some(buf.len() - rest.len() + (!not & 0x8080_8080_8080_8080).trailing_zeros() as usize / 8);
        }
        rest = after;
    }
    rest.iter().position(u8::is_ascii_digit).map(|i| buf.len() - rest.len() + i)
}

/// Where the digits from `from` on end, looking no further than `max` bytes.
pub(crate) fn digits_end(buf: &[u8], from: usize, max: usize) -> usize {
    let mut rest = &buf[from..buf.len().min(from + max)];
    let end = from + rest.len();
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let not = not_digits(*word);
        if not != 0 {
            return end - rest.len() + not.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    end - rest.len() + rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_found_wherever_they_stand() {
        for len in 0..40 {
            for at in 0..len {
                for byte in 0..=255u8 {
                    let mut buf = vec![b'/'; len];
                    buf[at] = byte;
                    assert_eq!(next_digit(&buf, 0), byte.is_ascii_digit().then_some(at), "{byte} at {at}");
                    let mut buf = vec![b'7'; len];
                    buf[at] = byte;
                    let end = if byte.is_ascii_digit() { len } else { at };
                    assert_eq!(digits_end(&buf, 0, 62), end, "{byte} at {at}");
                }
            }
        }
    }

    #[test]
    fn an_escape_ends_the_word_before() {
        for (text, starts) in [("a 12", true), ("a12", false), (r"\n12", true), (r"\u00a012", true), (r"xn12", false)] {
            assert_eq!(starts_word(text.as_bytes(), text.len() - 2), starts, "{text}");
        }
        assert_eq!(run_start(br"x\nana", 6, 64, 0, LOCAL), 3);
        assert_eq!(run_start(br"\u00a0ana", 9, 64, 0, LOCAL), 6);
    }
}
