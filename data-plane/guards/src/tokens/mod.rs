//! Keys and tokens that start with a fixed text.
//!
//! All fixed texts are looked for at once; where one is found, its rule says what must follow. A token
//! of open length that is longer than [`TOKEN_MAX`] is found in pieces, each the continuation of the
//! one before it, so that a stream need not hold more than one piece.

mod armour;
mod jwt;
mod rules;

use aho_corasick::packed;

use crate::{
    bytes::{run_end, starts_word},
    finding::Finding,
    kind::{Kind, KindSet},
};

pub(crate) use armour::KEY_MAX;
use rules::{Length, RULES, Rule, Shape};

/// Longest piece of a token.
pub(crate) const TOKEN_MAX: usize = 8 * 1024;

/// A token that went on when its finding was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    kind: Kind,
    class: u8,
}

/// What is known at a place where a token may be.
enum Look {
    /// It ends there.
    Token(usize),
    /// It goes on after there, in bytes of this class.
    Full(usize, u8),
    /// None.
    Nothing,
    /// The end of the buffer cuts it off.
    Cut,
}

/// The tokens of some kinds.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    rules: Vec<&'static Rule>,
    /// Finds the fixed texts of the rules by SIMD; `None` where the processor has none.
    packed: Option<packed::Searcher>,
}

impl Tokens {
    pub(crate) fn new(kinds: KindSet) -> Tokens {
        let rules: Vec<&Rule> = RULES.iter().filter(|r| kinds.has(r.kind)).collect();
        let config = packed::Config::new().match_kind(packed::MatchKind::LeftmostFirst).clone();
        let packed = config.builder().extend(rules.iter().map(|r| r.literal)).build();
        Tokens { rules, packed }
    }

    /// The next fixed text at or after `from`: its rule and offset.
    fn next(&self, buf: &[u8], from: usize) -> Option<(&'static Rule, usize)> {
        match &self.packed {
            Some(searcher) => {
                let found = searcher.find_in(buf, (from..buf.len()).into())?;
                Some((self.rules[found.pattern().as_usize()], found.start()))
            }
            None => self.next_plain(buf, from),
        }
    }

    /// The same, one offset after the other.
    fn next_plain(&self, buf: &[u8], from: usize) -> Option<(&'static Rule, usize)> {
        if self.rules.is_empty() {
            return None;
        }
        (from..buf.len()).find_map(|at| {
            let rule = self.rules.iter().find(|r| buf[at..].starts_with(r.literal.as_bytes()))?;
            Some((*rule, at))
        })
    }

    /// Finds the tokens that start at or after `from`, and the rest of one that is `open` there.
    /// Returns what the end of the buffer cuts off.
    pub(crate) fn scan(
        &self,
        buf: &[u8],
        from: usize,
        open: Option<Open>,
        last: bool,
        found: &mut Vec<Piece>,
    ) -> Option<Cut> {
        let mut at = from;
        if let Some(open) = open {
            at = match rest(buf, at, open, last, found) {
                Ok(end) => end,
                Err(cut) => return Some(cut),
            };
        }
        let mut run = Run::default();
        while let Some((rule, start)) = self.next(buf, at) {
            at = start + 1;
            if !starts_word(buf, start) {
                continue;
            }
            let (end, open) = match look(buf, start, rule, last, &mut run) {
                Look::Token(end) => (end, None),
                Look::Full(end, class) => (end, Some(Open { kind: rule.kind, class })),
                Look::Nothing => continue,
                Look::Cut => return Some(Cut { start, continues: None }),
            };
            found.push(Piece { finding: Finding::new(rule.kind, start, end), continues: None });
            at = end;
            if let Some(open) = open {
                at = match rest(buf, at, open, last, found) {
                    Ok(end) => end,
                    Err(cut) => return Some(cut),
                };
            }
        }
        None
    }
}

/// A finding, and what it is the continuation of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) finding: Finding,
    pub(crate) continues: Option<Open>,
}

/// A token, or the rest of one, that goes on after the end of the buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) start: usize,
    pub(crate) continues: Option<Open>,
}

/// Bytes of a class that were walked over last. Many fixed texts may stand in one run; it is walked once.
#[derive(Debug, Default)]
struct Run {
    class: u8,
    start: usize,
    end: usize,
}

impl Run {
    /// As [`run_end`].
    fn end(&mut self, buf: &[u8], from: usize, limit: usize, class: u8) -> usize {
        let known = self.class == class && self.start <= from && from <= self.end;
        if !known {
            *self = Run { class, start: from, end: from };
        }
        if self.end < limit {
            self.end = run_end(buf, self.end, limit, class);
        }
        self.end.min(limit)
    }
}

fn look(buf: &[u8], start: usize, rule: &Rule, last: bool, run: &mut Run) -> Look {
    let body = start + rule.literal.len();
    let (class, length) = match rule.shape {
        Shape::Armour => return armour::look(buf, start, body, last),
        Shape::Run(class, length) => (class, length),
    };
    let most = match length {
        Length::Exactly(n) => body + n,
        Length::AtLeast(_) => start + TOKEN_MAX,
    };
    let end = run.end(buf, body, most + 1, class);
    if end == buf.len() && end <= most && !last {
        return Look::Cut;
    }
    let fits = match length {
        Length::Exactly(n) => end == body + n,
        Length::AtLeast(n) => end >= body + n,
    };
    if !fits {
        return Look::Nothing;
    }
    let full = end > most;
    let end = end.min(most);
    match (rule.check)(&buf[start..end]) {
        None => Look::Nothing,
        Some(_) if full => Look::Full(end, class),
        Some(len) => Look::Token(start + len),
    }
}

/// The pieces of an open token from `at` on: where it ends, or where the buffer cuts it off.
fn rest(buf: &[u8], mut at: usize, open: Open, last: bool, found: &mut Vec<Piece>) -> Result<usize, Cut> {
    loop {
        let most = at + TOKEN_MAX;
        let (end, ended) = if open.kind == Kind::PrivateKey {
            let (end, ended) = armour::rest(buf, at, most);
            (if end == most { armour::whole_escape(buf, at, end) } else { end }, ended)
        } else {
            let end = run_end(buf, at, most, open.class);
            (end, end < most)
        };
        if end == buf.len() && end < most && !last {
            return Err(Cut { start: at, continues: Some(open) });
        }
        if end > at {
            let finding = Finding { continued: true, ..Finding::new(open.kind, at, end) };
            found.push(Piece { finding, continues: Some(open) });
        }
        if ended || end == at {
            return Ok(end);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_searches_find_the_same() {
        let mut all = KindSet::default();
        Kind::ALL.iter().for_each(|k| all.insert(*k));
        let tokens = Tokens::new(all);
        let text: String =
            RULES.iter().rev().flat_map(|r| ["x", r.literal, &r.literal[1..], " sk-an AKIAIza "]).collect();
        let text = text.as_bytes();
        for from in 0..text.len() {
            let found = |hit: Option<(&Rule, usize)>| hit.map(|(rule, at)| (rule.literal, at));
            assert_eq!(found(tokens.next(text, from)), found(tokens.next_plain(text, from)), "from {from}");
        }
    }
}
