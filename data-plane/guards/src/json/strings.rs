//! Texts and numbers on the walk: what they hold, decoded where escapes may hide something.

use std::ops::Range;

use bytes::Bytes;
use provost_mcp::{JsonLimits, RawJson};

use super::{
    LEVELS_MAX, Layout, Root,
    decoded::{Decoded, encode, may_hide},
    walk::{MASKED, Part, Walk},
};
use crate::{
    edit::{Edit, apply},
    finding::{Finding, extent, groups},
    guard::Action,
    kind::{Kind, KindSet},
    numbers::LOOK_BEHIND,
    replace::{Form, Written},
    stand_in::{self, Spot, StandIns},
};

/// What some programs write before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl<'a> Walk<'a> {
    pub(super) fn string(&mut self, part: Part, name: &[u8], inner: Range<usize>) {
        let found = self.pass(inner.end);
        if self.only_spans {
            return self.over_string(part, &inner, found);
        }
        if part == Part::Skipped || self.only_places {
            return;
        }
        if self.nested(part, name, &inner) {
            return;
        }
        let raw = self.text.get(inner.clone()).unwrap_or_default();
        self.give_back(part, &inner, found);
        if may_hide(raw) {
            return self.hidden(part, &inner);
        }
        self.judge(part, found);
        for group in groups(found) {
            if let Some((place, with)) = self.guard.instead(self.text, group, Written::InString, self.with) {
                self.out.edits.push(Edit { start: place.start, end: place.end, with });
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
            let mut found = self.guard.detectors().scan_beside(&buf, &mut StandIns::new(self.with.vault));
            found.retain(|f| f.start >= before.len() && f.end < buf.len());
            let origin = |at: usize| decoded.origin(at - before.len());
            for group in groups(&found) {
                let whole = extent(group);
                let place = origin(whole.start)..origin(whole.end);
                if covered.iter().any(|c| c.start < place.end && place.start < c.end) {
                    continue;
                }
                self.judge(part, group);
                if let Some((changed, text)) = self.guard.instead(&buf, group, Written::Plain, self.with) {
                    let (start, end) = (origin(changed.start), origin(changed.end));
                    self.out.edits.push(Edit { start, end, with: encode(&text, level) });
                }
                covered.push(place);
            }
            if !may_hide(&decoded.text) {
                break;
            }
            decoded = decoded.again();
        }
    }

    /// Counts findings, and notes whether they let the text pass.
    pub(super) fn judge(&mut self, part: Part, found: &[Finding]) {
        self.guard.tally(found, &mut self.out.tally);
        found.iter().for_each(|f| self.stop(part, self.guard.action(f), f.kind));
    }

    /// Opens the tokens in a string that may be.
    fn give_back(&mut self, part: Part, inner: &Range<usize>, found: &[Finding]) {
        if self.with.form != Form::Sent || !matches!(part, Part::Content | Part::Meta) {
            return;
        }
        for spot in self.spots_in(inner).iter().filter(|spot| self.guard.opens(spot, found)) {
            spot.kinds.iter().for_each(|kind| self.out.given_back.add(kind, Action::Reveal));
            let escaped = spot.value.bytes().any(|b| b < b' ' || matches!(b, b'"' | b'\\'));
            let times = 1 + u8::from(escaped && self.is_json(inner));
            let with = encode(spot.value.as_bytes(), times);
            self.out.edits.push(Edit { start: spot.outer.start, end: spot.outer.end, with });
        }
    }

    fn spots_in(&self, inner: &Range<usize>) -> &'a [Spot] {
        let first = self.spots.partition_point(|spot| spot.start < inner.start);
        let rest = self.spots.get(first..).unwrap_or_default();
        rest.get(..rest.partition_point(|spot| spot.end <= inner.end)).unwrap_or_default()
    }

    /// Whether a string is itself JSON.
    fn is_json(&self, inner: &Range<usize>) -> bool {
        let text = Decoded::of(self.text.get(inner.clone()).unwrap_or_default(), 0).text;
        matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
            && RawJson::check(Bytes::from(text), &JsonLimits::RESPONSE).is_ok()
    }

    /// The token for a whole value, quoted: of a text or a number. One that is a token already stays.
    pub(super) fn token_of(&self, value: &Range<usize>) -> Option<Vec<u8>> {
        let raw = self.text.get(value.clone())?;
        let mut kinds = KindSet::default();
        kinds.insert(Kind::Path);
        let token = if raw.starts_with(b"\"") {
            if raw.len() < 2 || !raw.ends_with(b"\"") {
                // A text that is cut off: no token can stand for it.
                return None;
            }
            let inner = value.start + 1..value.end.saturating_sub(1);
            if self.spots_in(&inner).iter().any(|spot| inner == (spot.start..spot.end)) {
                return Some(raw.to_vec());
            }
            let text = Decoded::of(self.text.get(inner)?, 0).text;
            stand_in::make(self.with.vault?, kinds, &text, false)?
        } else {
            let is_number = std::str::from_utf8(raw).is_ok_and(stand_in::is_number);
            stand_in::make(self.with.vault.filter(|_| is_number)?, kinds, raw, true)?
        };
        Some([b"\"", token.as_slice(), b"\""].concat())
    }

    /// Looks into a text that is itself JSON, for protected places. Whether it changed the text, and so
    /// said all there is to say of it.
    fn nested(&mut self, part: Part, name: &[u8], inner: &Range<usize>) -> bool {
        let is_in = |texts: &[&str]| texts.iter().any(|t| t.as_bytes() == name);
        let is_json = is_in(self.layout.json_texts);
        let may_be_json = matches!(self.layout.root, Root::MemberAndTexts(_, texts) if is_in(texts));
        if !(is_json || may_be_json) || self.guard.paths().is_empty() {
            return false;
        }
        let raw = self.text.get(inner.clone()).unwrap_or_default();
        let text = Decoded::of(raw, 0).text;
        let begin = text.trim_ascii_start();
        let begin = begin.strip_prefix(BYTE_ORDER_MARK).unwrap_or(begin).trim_ascii_start();
        let begins = matches!(begin.first(), Some(b'{' | b'['));
        let text = Bytes::from(text);
        let broken = !begins || RawJson::check(text.clone(), &JsonLimits::RESPONSE).is_err();
        if broken && is_json {
            return self.unreadable(part, inner);
        }
        if broken && !begins {
            return false;
        }
        // What is no JSON is taken apart as far as it goes, and stays what it is.
        let mut stand_ins = StandIns::new(self.with.vault);
        stand_ins.scan(&text, 0, true);
        let mut walk = Walk::new(self.guard, &text, &Layout::PLAIN, (&[], &stand_ins.spots), self.with);
        walk.only_places = true;
        let walked = if broken { walk.run_broken() } else { walk.run() };
        if walked.too_deep {
            return self.unreadable(part, inner);
        }
        if let Some(blocked) = walked.blocked {
            self.out.blocked.get_or_insert(blocked);
        }
        let places = walked.edits;
        self.out.tally.merge(&walked.tally);
        if places.is_empty() {
            return false;
        }
        // The rest of the text is looked at as a text.
        let changed = apply(&text, places);
        let quoted = RawJson::from_text(&String::from_utf8_lossy(&changed));
        let mut stand_ins = StandIns::new(self.with.vault);
        let found = self.guard.detectors().scan_beside(quoted.as_bytes(), &mut stand_ins);
        let mut rest = Walk::new(self.guard, quoted.as_bytes(), &Layout::PLAIN, (&found, &stand_ins.spots), self.with);
        let token = rest.scanner.value();
        rest.string(part, b"", token.start + 1..token.end.saturating_sub(1));
        let rest = rest.out;
        self.out.tally.merge(&rest.tally);
        self.out.given_back.merge(&rest.given_back);
        if let Some(blocked) = rest.blocked {
            self.out.blocked.get_or_insert(blocked);
        }
        let with = apply(quoted.as_bytes(), rest.edits);
        self.out.edits.push(Edit { start: inner.start - 1, end: inner.end + 1, with });
        true
    }

    /// A text that should be JSON and has no one reading: nobody can tell what stands at a protected place, so all of it does.
    /// Whether that says all there is to say of it.
    fn unreadable(&mut self, part: Part, inner: &Range<usize>) -> bool {
        let Some(action) = self.guard.paths().strictest() else { return false };
        let stays = action == Action::Report || (action == Action::Reveal && self.with.form == Form::Sent);
        if stays || self.text.get(inner.clone()).unwrap_or_default().trim_ascii().is_empty() {
            return false;
        }
        self.stop(part, action, Kind::Path);
        self.out.tally.add(Kind::Path, action.max(Action::Mask));
        self.out.edits.push(Edit { start: inner.start - 1, end: inner.end + 1, with: MASKED.to_vec() });
        true
    }
}
