//! All detectors over one buffer, and what is settled when more bytes may follow.
//!
//! Each family is a function of the bytes around its anchor, within fixed bounds. So when more bytes
//! may follow, everything before some offset is settled: no later byte makes part of it a finding, or
//! changes one. That offset is the least of: [`REACH`] bytes before the end (anchors not seen yet),
//! the start of what the end cuts off, and the start of a finding that would otherwise be divided.

use std::sync::Arc;

use crate::{
    email,
    finding::Finding,
    guard::Action,
    kind::{Kind, KindSet},
    numbers::{self, REACH},
    stand_in::{STAND_IN_MAX, StandIns},
    tokens::{KEY_MAX, Open, Piece, TOKEN_MAX, Tokens},
    words::{WORD_REACH, Words},
};

/// Most bytes that a [`GuardStream`](crate::GuardStream) holds after a chunk: the longest key, and one
/// finding (or token in place of a value) of each other family that overlaps the start of the next; and a quarter, because a scan
/// waits for that much.
pub const MAX_HELD: usize =
    (KEY_MAX + TOKEN_MAX + REACH + WORD_REACH + email::LOCAL_MAX + 1 + email::DOMAIN_MAX + STAND_IN_MAX) / 4 * 5;

/// A text is looked at in blocks of so many bytes: each family walks over it, and it should still be in
/// the cache when the next one does.
const BLOCK: usize = 16 * 1024;

/// Detectors of some kinds.
#[derive(Debug, Clone)]
pub struct Detectors {
    kinds: KindSet,
    tokens: Tokens,
    words: Vec<Arc<Words>>,
}

/// Where a scan begins, and what it must know of the bytes before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// Everything before is settled.
    pub(crate) from: usize,
    /// Where the last address ended.
    pub(crate) email_end: usize,
    /// A token that goes on at `from`.
    pub(crate) open: Option<Open>,
}

impl Detectors {
    /// Detectors of these kinds.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Detectors {
        let mut set = KindSet::default();
        kinds.into_iter().for_each(|k| set.insert(k));
        Detectors { kinds: set, tokens: Tokens::new(set), words: Vec::new() }
    }

    /// With words of a tenant's own.
    pub(crate) fn with_words(self, words: Vec<Arc<Words>>) -> Detectors {
        Detectors { words, ..self }
    }

    pub(crate) fn any_word(&self, action: Action) -> bool {
        self.words.iter().any(|words| words.any(action))
    }

    /// Whether there is anything to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.kinds == KindSet::default() && self.words.is_empty()
    }

    /// Everything in a whole text, in the order of where it starts. Findings of different kinds may overlap.
    pub fn scan(&self, text: &[u8]) -> Vec<Finding> {
        self.scan_beside(text, &mut StandIns::new(None))
    }

    /// The same but for what lies in tokens, which are found too.
    pub(crate) fn scan_beside(&self, text: &[u8], stand_ins: &mut StandIns<'_>) -> Vec<Finding> {
        let (mut found, mut spots, mut part) = (Vec::new(), Vec::new(), Vec::new());
        let (mut cursor, mut step) = (Cursor::default(), BLOCK);
        loop {
            let end = text.len().min(cursor.from.saturating_add(step));
            let last = end == text.len();
            let next = self.advance(text.get(..end).unwrap_or(text), cursor, last, &mut part, stand_ins);
            found.append(&mut part);
            spots.append(&mut stand_ins.spots);
            if last {
                stand_ins.spots = spots;
                return found;
            }
            // Where much is open the step grows, so that the work stays linear.
            step = if next.from - cursor.from < step / 2 { step.saturating_mul(2) } else { BLOCK };
            cursor = next;
        }
    }

    /// Finds what is settled from `cursor` on, and returns where that ends. `last`: nothing follows.
    pub(crate) fn advance(
        &self,
        buf: &[u8],
        cursor: Cursor,
        last: bool,
        found: &mut Vec<Finding>,
        stand_ins: &mut StandIns<'_>,
    ) -> Cursor {
        let from = cursor.from;
        found.clear();
        let tail = if last { buf.len() } else { buf.len().saturating_sub(REACH).max(from) };
        let mut settled = tail;
        let mut pieces: Vec<Piece> = Vec::new();
        let cut_token = self.tokens.scan(buf, from, cursor.open, last, &mut pieces);
        if let Some(cut) = cut_token {
            settled = settled.min(cut.start);
        }
        if let Some(cut) = email::scan(buf, from, cursor.email_end, last, self.kinds, found) {
            settled = settled.min(cut);
        }
        numbers::scan(buf, from, tail, self.kinds, found);
        if !self.words.is_empty() {
            let limit = if last { buf.len() } else { buf.len().saturating_sub(WORD_REACH).max(from) };
            settled = settled.min(limit);
            self.words.iter().for_each(|words| words.scan(buf, from, limit, found));
        }
        if let Some(cut) = stand_ins.scan(buf, from, last) {
            settled = settled.min(cut);
        }
        found.extend(pieces.iter().map(|p| p.finding));
        found.retain(|f| !stand_ins.hold(f));
        found.sort_unstable();

        // Moving back for one finding may divide another that starts before it.
        loop {
            let findings = found.iter().map(|f| (f.start, f.end));
            let spots = stand_ins.spots.iter().map(|s| (s.outer.start, s.outer.end));
            let divided = findings.chain(spots).filter(|(start, end)| *start < settled && settled < *end);
            match divided.map(|(start, _)| start).min() {
                Some(start) => settled = start,
                None => break,
            }
        }
        found.retain(|f| f.end <= settled);
        stand_ins.spots.retain(|s| s.outer.end <= settled);
        let email_end = found.iter().filter(|f| f.kind == Kind::Email).map(|f| f.end).max();
        // A token is open at `settled` if its next piece, seen or cut off, starts there.
        let seen = pieces.iter().find(|p| p.finding.start == settled).and_then(|p| p.continues);
        let open = seen.or_else(|| cut_token.filter(|cut| cut.start == settled).and_then(|cut| cut.continues));
        Cursor { from: settled, email_end: email_end.unwrap_or(cursor.email_end), open }
    }
}
