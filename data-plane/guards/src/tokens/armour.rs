//! Armoured private keys: PEM (RFC 7468) and OpenPGP (RFC 9580), raw or in a JSON string.
//!
//! Begins at the marker and ends after the end marker. If there is none (a truncated log), it ends
//! where base64 does. A marker with no base64 near it is somebody writing about keys.

use memchr::memmem;

use super::{Look, TOKEN_MAX};
use crate::bytes::{ARMOUR, BASE64_LINES, BASE64_URL, run_end};

/// Longest armoured key that is one finding: RSA with 16384 bits takes 12.6 KiB.
pub(crate) const KEY_MAX: usize = 2 * TOKEN_MAX;

/// Longest label between the dashes.
const LABEL_MAX: usize = 48;
/// How far from the marker the base64 begins: OpenPGP and old PEM have headers.
const HEADERS_MAX: usize = 512;
/// A line of base64 is at least so long.
const LINE_MIN: usize = 40;

const DASHES: &[u8] = b"-----";
const END: &[u8] = b"-----END ";

pub(super) fn look(buf: &[u8], start: usize, label: usize, last: bool) -> Look {
    let limit = start + KEY_MAX;
    let window = &buf[..buf.len().min(limit)];
    let cut = !last && buf.len() < limit;

    let names = run_end(window, label, label + LABEL_MAX, BASE64_URL | ARMOUR);
    let Some(label_len) = memmem::find(&window[label..names], DASHES) else {
        return if cut && names == buf.len() { Look::Cut } else { Look::Nothing };
    };
    let name = &window[label..label + label_len];
    if !name.ends_with(b"PRIVATE KEY") && !name.ends_with(b"PRIVATE KEY BLOCK") {
        return Look::Nothing;
    }
    let body = label + label_len + DASHES.len();
    // Near first: a text of many markers and no key must not cost a whole key's length each.
    let (near, _) = rest(window, body, body + HEADERS_MAX);
    let Some(line) = first_line(&window[body..near]) else {
        return if cut && near == buf.len() { Look::Cut } else { Look::Nothing };
    };
    let (end, ended) = rest(window, body, limit);
    if cut && !ended {
        return Look::Cut;
    }
    if !ended && end == limit {
        return Look::Full(whole_escape(window, body, end), ARMOUR);
    }
    let marked = window[..end].ends_with(DASHES);
    Look::Token(if marked { end } else { run_end(window, body + line, end, BASE64_LINES) })
}

/// Where the armour from `from` on ends, and whether it does before `limit`. It does after the end
/// marker, or before a byte that cannot be in it.
pub(super) fn rest(buf: &[u8], from: usize, limit: usize) -> (usize, bool) {
    let limit = limit.min(buf.len());
    let marker = memmem::find(&buf[from..limit], END).map(|at| from + at);
    let end = run_end(buf, from, marker.unwrap_or(limit), ARMOUR | BASE64_URL);
    if marker == Some(end) {
        let label = end + END.len();
        let names = run_end(buf, label, limit.min(label + LABEL_MAX), ARMOUR | BASE64_URL);
        if let Some(dashes) = memmem::find(&buf[label..names], DASHES) {
            return (label + dashes + DASHES.len(), true);
        }
        // An end marker that is itself cut off, or none after all.
        let end = run_end(buf, end, limit, ARMOUR | BASE64_URL);
        return (end, end < limit);
    }
    (end, end < limit)
}

/// Where the first line of base64 begins.
fn first_line(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < body.len() {
        let end = run_end(body, at, body.len(), BASE64_LINES);
        // In JSON the `\n` between lines is of this class too: a line is what counts, not its length.
        if end - at >= LINE_MIN {
            return Some(at);
        }
        at = end + 1;
    }
    None
}

/// A piece does not end within a JSON escape: it ends before the backslash.
pub(super) fn whole_escape(buf: &[u8], from: usize, end: usize) -> usize {
    const ESCAPE: usize = 6;
    let near = end.saturating_sub(ESCAPE - 1).max(from + 1);
    let backslash = buf[near..end].iter().position(|b| *b == b'\\');
    backslash.map_or(end, |at| near + at)
}
