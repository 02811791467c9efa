//! JSON web tokens (RFC 7519), signed (RFC 7515) and encrypted (RFC 7516).

/// Most characters of a header that are decoded.
const HEADER_MAX: usize = 1024;

/// A header that names an algorithm, and at least one more part.
pub(crate) fn check(token: &[u8]) -> Option<usize> {
    let len = token.iter().rposition(|b| *b != b'.')? + 1;
    let mut parts = token[..len].split(|b| *b == b'.');
    let (header, next) = (parts.next()?, parts.next()?);
    (next.len() >= 4 && names_algorithm(header)).then_some(len)
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
            // The last five bytes, as one number.
            seen = (seen << 8 | u64::from(bits >> held & 0xff)) & 0xff_ffff_ffff;
            if seen == u64::from_be_bytes(*b"\0\0\0\"alg\"") {
                return true;
            }
        }
    }
    false
}
