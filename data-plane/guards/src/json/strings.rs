//! Texts and numbers on the walk: what they hold, decoded where escapes may hide something.

use std::ops::Range;

use bytes::Bytes;
use provost_mcp::{JsonLimits, RawJson};

use super::{
    Edit, LEVELS_MAX, Layout, Root, apply,
    decoded::{Decoded, encode, may_hide},
    walk::{Part, Walk},
};
use crate::{finding::Finding, guard::Action, mask, numbers::LOOK_BEHIND};

impl Walk<'_> {
    pub(super) fn string(&mut self, part: Part, name: &[u8], inner: Range<usize>) {
        let found = self.pass(inner.end);
        if part == Part::Skipped || self.only_places {
            return;
        }
        if self.nested(part, name, &inner) {
            return;
        }
        let raw = self.text.get(inner.clone()).unwrap_or_default();
        if may_hide(raw) {
            return self.hidden(part, &inner);
        }
        for group in groups(found) {
            let (start, end) = extent(group);
            let mut text = self.text.get(start..end).unwrap_or_default().to_vec();
            if self.hide_in_text(part, group, self.text, start, &mut text) {
                self.out.edits.push(Edit { start, end, with: text });
            }
        }
    }

    /// Looks at a string decoded, as often as escapes are left.
    fn hidden(&mut self, part: Part, inner: &Range<usize>) {
        let raw = self.text.get(inner.clone()).unwrap_or_default();
        // What stands before says what a number is.
        let before = inner.start.saturating_sub(LOOK_BEHIND);
        let before = self.text.get(before..inner.start).unwrap_or_default();
        let mut decoded = Decoded::of(raw, inner.start);
        let mut covered: Vec<Range<usize>> = Vec::new();
        for level in 1..=LEVELS_MAX {
            let buf = [before, decoded.text.as_slice(), b"\""].concat();
            let mut found = self.guard.detectors().scan(&buf);
            found.retain(|f| f.start >= before.len() && f.end < buf.len());
            let origin = |at: usize| decoded.origin(at - before.len());
            for group in groups(&found) {
                let (start, end) = extent(group);
                let place = origin(start)..origin(end);
                if covered.iter().any(|c| c.start < place.end && place.start < c.end) {
                    continue;
                }
                let mut text = buf.get(start..end).unwrap_or_default().to_vec();
                if self.hide_in_text(part, group, &buf, start, &mut text) {
                    self.out.edits.push(Edit { start: place.start, end: place.end, with: encode(&text, level) });
                }
                covered.push(place);
            }
            if !may_hide(&decoded.text) {
                break;
            }
            decoded = decoded.again();
        }
    }

    /// Counts findings, and hides them in `text`, which begins at `offset`. Whether anything was hidden.
    pub(super) fn hide(&mut self, part: Part, found: &[Finding], offset: usize, text: &mut [u8]) -> bool {
        let mut hidden = false;
        self.guard.tally(found, &mut self.out.tally);
        let whole = text.to_vec();
        for finding in found {
            let action = self.guard.action(finding);
            self.stop(part, action, finding.kind);
            let range = finding.start - offset..finding.end - offset;
            if action > Action::Report
                && let (Some(value), Some(out)) = (whole.get(range.clone()), text.get_mut(range))
            {
                mask::hide_text(value, finding.kind, out);
                hidden = true;
            }
        }
        hidden
    }

    /// The same in a text: a number that stands there as in JSON stays a number.
    fn hide_in_text(&mut self, part: Part, found: &[Finding], buf: &[u8], offset: usize, text: &mut [u8]) -> bool {
        let mut hidden = false;
        self.guard.tally(found, &mut self.out.tally);
        for finding in found {
            let action = self.guard.action(finding);
            self.stop(part, action, finding.kind);
            if action > Action::Report
                && let Some(out) = text.get_mut(finding.start - offset..finding.end - offset)
            {
                mask::hide(buf, finding, out);
                hidden = true;
            }
        }
        hidden
    }

    /// Looks into a text that is itself JSON, for protected places. Whether it changed the text, and so
    /// said all there is to say of it.
    fn nested(&mut self, part: Part, name: &[u8], inner: &Range<usize>) -> bool {
        let Root::MemberAndTexts(_, texts) = self.layout.root else { return false };
        let is_text = texts.iter().any(|t| t.as_bytes() == name);
        if !is_text || self.guard.paths().is_empty() {
            return false;
        }
        let raw = self.text.get(inner.clone()).unwrap_or_default();
        let text = Decoded::of(raw, 0).text;
        if !matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return false;
        }
        let Ok(json) = RawJson::check(Bytes::from(text), &JsonLimits::RESPONSE) else { return false };
        let mut walk = Walk::new(self.guard, &json, &Layout::PLAIN, &[]);
        walk.only_places = true;
        let walked = walk.run();
        if let Some(blocked) = walked.blocked {
            self.out.blocked.get_or_insert(blocked);
        }
        let places = walked.edits;
        self.out.tally.merge(&walked.tally);
        if places.is_empty() {
            return false;
        }
        // The rest of the text is looked at as a text.
        let changed = RawJson::from_checked(Bytes::from(apply(json.as_bytes(), places)));
        let quoted = RawJson::from_text(changed.as_str());
        let found = self.guard.detectors().scan(quoted.as_bytes());
        let mut rest = Walk::new(self.guard, &quoted, &Layout::PLAIN, &found);
        let token = rest.scanner.value();
        rest.string(part, b"", token.start + 1..token.end.saturating_sub(1));
        let rest = rest.out;
        self.out.tally.merge(&rest.tally);
        if let Some(blocked) = rest.blocked {
            self.out.blocked.get_or_insert(blocked);
        }
        let with = apply(quoted.as_bytes(), rest.edits);
        self.out.edits.push(Edit { start: inner.start - 1, end: inner.end + 1, with });
        true
    }
}

/// Findings that overlap, together.
fn groups(found: &[Finding]) -> impl Iterator<Item = &[Finding]> {
    let mut rest = found;
    std::iter::from_fn(move || {
        let mut end = rest.first()?.end;
        let count = rest.iter().skip(1).take_while(|f| {
            let overlaps = f.start < end;
            end = end.max(if overlaps { f.end } else { end });
            overlaps
        });
        let (group, after) = rest.split_at(count.count() + 1);
        rest = after;
        Some(group)
    })
}

fn extent(group: &[Finding]) -> (usize, usize) {
    let start = group.first().map_or(0, |f| f.start);
    (start, group.iter().map(|f| f.end).max().unwrap_or(start))
}
