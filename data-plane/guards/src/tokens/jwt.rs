//! JSON web tokens (RFC 7519), signed (RFC 7515) and encrypted (RFC 7516).

use memchr::memchr;

use super::rules::without_full_stop;

/// Most characters of a header. It is a few dozen; with certificates in it, the algorithm still comes first.
const HEADER_MAX: usize = 512;

/// A header that names an algorithm, and at least one more part.
pub(crate) fn check(token: &[u8]) -> Option<usize> {
    let token = without_full_stop(token);
    let header = memchr(b'.', &token[..token.len().min(HEADER_MAX * 8)])?;
    let next = token.get(header + 1..header + 5)?;
    (!next.contains(&b'.') && names_algorithm(&token[..header])).then_some(token.len())
}

/// Whether the decoded header holds `"alg"`.
fn names_algorithm(header: &[u8]) -> bool {
    let mut seen = 0u64;
    let (mut bits, mut held) = (0u32, 0u32);
    for c in header.iter().take(HEADER_MAX) {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return false,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            let byte = bits >> held & 0xff;
            if !(b' '.into()..0x7f).contains(&byte) {
                // No header that anybody writes; most of what is none ends here.
                return false;
            }
            // The last five bytes, as one number.
            seen = (seen << 8 | u64::from(byte)) & 0xff_ffff_ffff;
            if seen == u64::from_be_bytes(*b"\0\0\0\"alg\"") {
                return true;
            }
        }
    }
    false
}
