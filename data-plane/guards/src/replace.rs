//! What stands in place of what was found.
//!
//! Invariants: of findings that overlap the strictest action holds for all of them, so no part of a value
//! that is masked is in a token; what may be given back and stays plain where it goes is a token where it
//! is kept ([`Form`]).

use std::ops::Range;

use memchr::memrchr;

use crate::{
    edit::{Edit, apply_in},
    finding::{Finding, extent, groups},
    guard::{Action, Guard},
    kind::{Kind, KindSet},
    mask,
    stand_in::{self, SLASHES_MAX, Spot, VALUE_MAX, Vault},
    tally::Tally,
};

/// How far back a quote is looked for: in a text that may be a stream's, less than the stream keeps of what it has released,
/// with the backslashes before the quote.
const NEAR: usize = 64;
/// The same in a string of JSON, which is there as a whole.
const NEAR_IN_STRING: usize = 4096;

/// For whom a text is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For the log: what may be given back is a token here too.
    Kept,
    /// For who gets it: tokens that may be given back are opened.
    Sent,
}

/// With what a text is made.
#[derive(Clone, Copy)]
pub(crate) struct With<'a> {
    pub(crate) form: Form,
    pub(crate) vault: Option<&'a dyn Vault>,
}

/// How values are written in a buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// As they are.
    Plain,
    /// As the contents of a JSON string.
    InString,
    /// As a number of JSON, from here to there.
    Number(usize, usize),
}

impl Written {
    /// The quote of JSON in such a text, where no other one is near.
    const fn quote(self) -> &'static [u8] {
        match self {
            Written::Plain | Written::Number(..) => b"\"",
            Written::InString => b"\\\"",
        }
    }
}

impl Guard {
    /// What is done about a finding in this form.
    pub(crate) fn action_in(&self, finding: &Finding, form: Form) -> Action {
        let action = self.action(finding);
        let action = if action == Action::Reveal && form == Form::Kept { Action::Tokenise } else { action };
        let too_long = finding.continued || finding.end - finding.start > VALUE_MAX;
        if action == Action::Tokenise && too_long { Action::Mask } else { action }
    }

    /// What stands in place of findings that overlap, and where; `None`: they stay.
    pub(crate) fn instead(
        &self,
        buf: &[u8],
        group: &[Finding],
        written: Written,
        with: With<'_>,
    ) -> Option<(Range<usize>, Vec<u8>)> {
        let hides = |f: &&Finding| self.action_in(f, with.form) > Action::Reveal;
        let strictest = group.iter().map(|f| self.action_in(f, with.form)).max()?;
        if strictest <= Action::Reveal {
            return None;
        }
        if strictest == Action::Tokenise {
            let hidden: Vec<Finding> = group.iter().filter(hides).copied().collect();
            let place = extent(&hidden);
            if let Some(token) = self.token(buf, &hidden, place.clone(), written, with) {
                return Some((place, token));
            }
        }
        let place = extent(group);
        let mut text = buf.get(place.clone())?.to_vec();
        for finding in group.iter().filter(hides) {
            if let Some(out) = text.get_mut(finding.start - place.start..finding.end - place.start) {
                match written {
                    Written::Number(..) => mask::hide_text(buf.get(finding.range())?, finding.kind, out),
                    _ => mask::hide(buf, finding, out),
                }
            }
        }
        Some((place, text))
    }

    fn token(
        &self,
        buf: &[u8],
        hidden: &[Finding],
        place: Range<usize>,
        written: Written,
        with: With<'_>,
    ) -> Option<Vec<u8>> {
        let raw = buf.get(place.clone())?;
        let mut kinds = KindSet::default();
        hidden.iter().for_each(|f| kinds.insert(f.kind));
        let is_number = std::str::from_utf8(raw).is_ok_and(stand_in::is_number);
        if let Written::Number(start, end) = written {
            return stand_in::make(with.vault?, kinds, raw, is_number && place == (start..end));
        }
        if is_number && mask::is_json_number(buf, &place) {
            let quote = quote_near(buf, place.start, written).unwrap_or(written.quote());
            let token = stand_in::make(with.vault?, kinds, raw, true)?;
            return Some([quote, &token, quote].concat());
        }
        match written {
            Written::Plain | Written::Number(..) => stand_in::make(with.vault?, kinds, raw, false),
            Written::InString => stand_in::make(with.vault?, kinds, &crate::json::decoded_once(raw), false),
        }
    }

    /// Whether a token may be given back: its kinds may, and what it holds is nothing that may not.
    pub(crate) fn opens(&self, spot: &Spot, found: &[Finding]) -> bool {
        let may = |kind: Kind| match kind {
            Kind::Word => self.reveals_words(),
            Kind::Path => self.paths().reveal(),
            kind => self.rules().action(kind) == Some(Action::Reveal),
        };
        spot.kinds.iter().all(may)
            && !found.iter().any(|f| spot.overlaps(f))
            && self.detectors().scan(spot.value.as_bytes()).iter().all(|f| self.action(f) <= Action::Reveal)
    }

    /// Appends a part of a plain text as it goes on, and counts what was given back.
    pub(crate) fn render(
        &self,
        (buf, part): (&[u8], Range<usize>),
        (found, spots): (&[Finding], &[Spot]),
        with: With<'_>,
        given_back: &mut Tally,
        out: &mut Vec<u8>,
    ) {
        if spots.is_empty() && !self.tokenises() {
            let begun = out.len();
            out.extend_from_slice(buf.get(part.clone()).unwrap_or_default());
            return self.mask(buf, found, part.start, out.get_mut(begun..).unwrap_or_default());
        }
        let mut edits: Vec<Edit> = groups(found)
            .filter_map(|group| self.instead(buf, group, Written::Plain, with))
            .map(|(place, with)| Edit { start: place.start, end: place.end, with })
            .collect();
        for spot in spots.iter().filter(|spot| with.form == Form::Sent && self.opens(spot, found)) {
            spot.kinds.iter().for_each(|kind| given_back.add(kind, Action::Reveal));
            let with = spot.value.clone().into_bytes();
            edits.push(Edit { start: spot.outer.start, end: spot.outer.end, with });
        }
        apply_in(buf, part, edits, out);
    }
}

/// The last quote before a number, with its backslashes: it says how deep JSON stands in the text.
fn quote_near(buf: &[u8], at: usize, written: Written) -> Option<&[u8]> {
    let near = if written == Written::InString { NEAR_IN_STRING } else { NEAR };
    let from = at.saturating_sub(near);
    let quote = from + memrchr(b'"', buf.get(from..at)?)?;
    let slashes = buf.get(..quote)?.iter().rev().take(SLASHES_MAX + 1).take_while(|b| **b == b'\\').count();
    // Within a string a bare quote is its own first one.
    let outside = written == Written::InString && slashes == 0;
    (!outside && slashes <= SLASHES_MAX).then(|| buf.get(quote - slashes..=quote)).flatten()
}
