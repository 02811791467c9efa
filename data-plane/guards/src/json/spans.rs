//! Writing over places that somebody else found.

use std::ops::Range;

use provost_mcp::RawJson;

use super::{
    Layout,
    decoded::Decoded,
    walk::{Part, Walk},
};
use crate::{
    edit::{Edit, apply},
    finding::Finding,
    guard::{Guard, Rules},
    kind::Kind,
    replace::{Form, With},
};

/// The text with these places written over; `None` if one of them is not within a string or the whole of a
/// number, divides a character or an escape, overlaps another, or is where nothing can be changed.
pub fn mask_spans(json: &RawJson, layout: &Layout, spans: &[Range<usize>]) -> Option<RawJson> {
    let mut found: Vec<Finding> = spans.iter().map(|s| Finding::new(Kind::External, s.start, s.end)).collect();
    found.sort_unstable();
    let apart = found.windows(2).all(|pair| matches!(pair, [a, b] if a.end <= b.start));
    if !apart || found.iter().any(|f| f.start >= f.end || f.end > json.as_bytes().len()) {
        return None;
    }
    let guard = Guard::new(Rules::default());
    let mut walk = Walk::new(&guard, json.as_bytes(), layout, (&found, &[]), With { form: Form::Kept, vault: None });
    walk.only_spans = true;
    let walked = walk.run();
    (walked.edits.len() == found.len() && walked.blocked.is_none())
        .then(|| RawJson::from_checked(apply(json.as_bytes(), walked.edits).into()))
}

impl Walk<'_> {
    /// Writes over the spans in a string. What is not done is missed in the end.
    pub(super) fn over_string(&mut self, part: Part, inner: &Range<usize>, found: &[Finding]) {
        if !matches!(part, Part::Content | Part::Meta) || found.is_empty() {
            return;
        }
        let raw = self.text.get(inner.clone()).unwrap_or_default();
        let decoded = Decoded::of(raw, inner.start);
        let text = String::from_utf8_lossy(&decoded.text);
        // Where characters begin, and the end.
        let borders: Vec<usize> =
            text.char_indices().map(|(at, _)| at).chain([decoded.text.len()]).map(|at| decoded.origin(at)).collect();
        let border = |at: usize| borders.binary_search(&at).ok();
        for span in found {
            if let (Some(first), Some(last)) = (border(span.start), border(span.end)) {
                let with = "*".repeat(last - first).into_bytes();
                self.out.edits.push(Edit { start: span.start, end: span.end, with });
            }
        }
    }

    /// Writes over a whole number or word.
    pub(super) fn over_scalar(&mut self, part: Part, token: &Range<usize>, found: &[Finding]) {
        let whole = found.iter().any(|span| span.range() == *token);
        if whole && matches!(part, Part::Content | Part::Meta) {
            let with = format!("\"{}\"", "*".repeat(token.len())).into_bytes();
            self.out.edits.push(Edit { start: token.start, end: token.end, with });
        }
    }
}
