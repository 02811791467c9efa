//! Changes of a text, made at once.

use std::ops::Range;

/// In place of some bytes, others.
#[derive(Debug)]
pub(crate) struct Edit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) with: Vec<u8>,
}

/// The text with the edits made. Edits that overlap one that begins earlier are part of it.
pub(crate) fn apply(text: &[u8], edits: Vec<Edit>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    apply_in(text, 0..text.len(), edits, &mut out);
    out
}

/// Appends a part of the text with the edits that lie in it made.
pub(crate) fn apply_in(text: &[u8], part: Range<usize>, mut edits: Vec<Edit>, out: &mut Vec<u8>) {
    edits.sort_by_key(|e| (e.start, std::cmp::Reverse(e.end)));
    let mut at = part.start;
    for edit in edits {
        if edit.start < at || edit.end > part.end {
            continue;
        }
        out.extend_from_slice(text.get(at..edit.start).unwrap_or_default());
        out.extend_from_slice(&edit.with);
        at = edit.end;
    }
    out.extend_from_slice(text.get(at..part.end).unwrap_or_default());
}
