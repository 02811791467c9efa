//! E-mail addresses.
//!
//! Anchored at the `@`. Before it what people write (no quotes, ASCII), after it a host name whose last
//! label is letters and no file extension: `logo@2x.png` and `lodash@4.17.21` are no addresses.

use memchr::memchr;

use crate::{
    bytes::{ALNUM, DOMAIN, LOCAL, is, run_end, run_start},
    finding::Finding,
    kind::{Kind, KindSet},
};

/// RFC 5321, 4.5.3.1.1.
pub(crate) const LOCAL_MAX: usize = 64;
/// RFC 5321, 4.5.3.1.2.
pub(crate) const DOMAIN_MAX: usize = 255;
/// RFC 1035, 2.3.4.
const LABEL_MAX: usize = 63;

/// What looks like a top-level domain and is the end of a file's name.
const EXTENSIONS: [&[u8]; 12] =
    [b"png", b"jpg", b"jpeg", b"gif", b"svg", b"webp", b"avif", b"css", b"js", b"json", b"html", b"map"];

/// Finds the addresses whose `@` is at or after `from`. `floor` is where the last address before ended.
/// Returns where an address starts that the end of the buffer cuts off.
pub(crate) fn scan(
    buf: &[u8],
    from: usize,
    floor: usize,
    last: bool,
    kinds: KindSet,
    found: &mut Vec<Finding>,
) -> Option<usize> {
    if !kinds.has(Kind::Email) {
        return None;
    }
    let (mut at, mut floor) = (from, floor);
    while let Some(sign) = memchr(b'@', buf.get(at..)?).map(|i| at + i) {
        at = sign + 1;
        let local = run_start(buf, sign, LOCAL_MAX, floor, LOCAL);
        // It starts with a letter or a digit: `--name@` is an option and a name.
        let Some(start) = (local..sign).find(|i| is(buf[*i], ALNUM)) else { continue };
        if start < from {
            continue;
        }
        let end = run_end(buf, at, at + DOMAIN_MAX + 1, DOMAIN);
        if !last && end == buf.len() && end - at <= DOMAIN_MAX {
            return Some(start);
        }
        if let Some(len) = host_len(&buf[at..end]).filter(|_| &buf[start..sign] != b"git") {
            floor = at + len;
            at = floor;
            found.push(Finding::new(Kind::Email, start, floor));
        }
    }
    None
}

/// How much of the text is a host name with a top-level domain.
fn host_len(text: &[u8]) -> Option<usize> {
    let len = text.iter().rposition(|b| is(*b, ALNUM))? + 1;
    if len > DOMAIN_MAX {
        return None;
    }
    let mut top: &[u8] = b"";
    let mut labels = 0;
    for label in text[..len].split(|b| *b == b'.') {
        if label.is_empty() || label.len() > LABEL_MAX || label[0] == b'-' {
            return None;
        }
        top = label;
        labels += 1;
    }
    let letters = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
    let punycode = top.len() > 4 && top[..4].eq_ignore_ascii_case(b"xn--");
    let file = EXTENSIONS.iter().any(|e| top.eq_ignore_ascii_case(e));
    (labels > 1 && (letters || punycode) && !file).then_some(len)
}
