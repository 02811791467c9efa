//! Tokens that stand in for values, so that a value comes back where it may.
//!
//! Purpose: `[[pv:card:MFRGG…]]` in place of a card number. The token holds the value, sealed by a
//! [`Vault`]; no table of values is kept anywhere.
//! Invariants:
//! - Equal values of equal kinds give equal tokens, as long as the vault's key is the same.
//! - Only a token that the vault opens counts as one. Everything else that looks like it is text: it is
//!   looked at as text, stays as it is, and nobody is told why.
//! - What is inside a token is not looked at by detectors, so guarding twice changes nothing.
//!
//! Left out: keys and ciphers (the vault's), and who may have values back (the guard's rules).

mod text;

use std::{fmt, ops::Range};

use memchr::memmem;

use crate::{
    finding::Finding,
    kind::{Kind, KindSet},
};

use text::{Look, MARK, look};
pub(crate) use text::{SLASHES_MAX, STAND_IN_MAX, VALUE_MAX};

/// Seals values for one tenant. Deterministic: it has no randomness and keeps nothing.
pub trait Vault: fmt::Debug + Send + Sync {
    /// The value sealed and bound to the names of its kinds, at most 26 bytes longer; equal ones give
    /// equal bytes. `None`: it cannot be now, and is masked.
    fn seal(&self, kinds: &str, value: &[u8]) -> Option<Vec<u8>>;

    /// What was sealed; `None` if it was sealed by another, for other kinds, under a key that is gone, or
    /// was changed.
    fn open(&self, kinds: &str, sealed: &[u8]) -> Option<Vec<u8>>;
}

/// A token that the vault opens, and where it stands.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// With the quotes around it, where it stands for a number.
    pub(crate) outer: Range<usize>,
    pub(crate) kinds: KindSet,
    pub(crate) value: String,
}

impl Spot {
    pub(crate) fn overlaps(&self, finding: &Finding) -> bool {
        finding.start < self.end && self.start < finding.end
    }

    fn holds(&self, finding: &Finding) -> bool {
        self.start <= finding.start && finding.end <= self.end
    }
}

/// Looks for tokens beside the detectors; without a vault there are none.
pub(crate) struct StandIns<'a> {
    vault: Option<&'a dyn Vault>,
    pub(crate) spots: Vec<Spot>,
}

impl<'a> StandIns<'a> {
    pub(crate) fn new(vault: Option<&'a dyn Vault>) -> Self {
        Self { vault, spots: Vec::new() }
    }

    /// Finds the tokens that start at or after `from`. Returns where one starts that the end of the buffer
    /// may cut off.
    pub(crate) fn scan(&mut self, buf: &[u8], from: usize, last: bool) -> Option<usize> {
        self.spots.clear();
        let vault = self.vault?;
        let mut at = from;
        while let Some(found) = memmem::find(buf.get(at..)?, MARK) {
            let start = at + found;
            at = start + 1;
            match look(buf, start) {
                Look::Token(token) => {
                    at = token.end;
                    let Some(kinds) = KindSet::from_names(token.kinds) else { continue };
                    let opened = text::unarmour(token.body).and_then(|sealed| vault.open(token.kinds, &sealed));
                    let Some(value) = opened.and_then(|value| String::from_utf8(value).ok()) else { continue };
                    let quoted = || text::quoted(buf, start..token.end, from);
                    let is_number = token.is_number && text::is_number(&value);
                    let outer = is_number.then(quoted).flatten().unwrap_or(start..token.end);
                    self.spots.push(Spot { start, end: token.end, outer, kinds, value });
                }
                Look::Cut if !last => return Some(text::quote_start(buf, start, from)),
                Look::Cut | Look::Nothing => {}
            }
        }
        None
    }

    /// Whether the finding lies in a token, and so is none.
    pub(crate) fn hold(&self, finding: &Finding) -> bool {
        self.spots.iter().any(|spot| spot.holds(finding))
    }
}

/// The token for a value. `is_number`: it stands, quoted, where JSON has a number.
pub(crate) fn make(vault: &dyn Vault, kinds: KindSet, value: &[u8], is_number: bool) -> Option<Vec<u8>> {
    if value.len() > VALUE_MAX {
        return None;
    }
    let kinds = kinds.names();
    let sealed = vault.seal(&kinds, value)?;
    text::written(&kinds, is_number, &sealed)
}

/// Whether a text is a number as JSON writes one.
pub(crate) fn is_number(text: &str) -> bool {
    text::is_number(text)
}

impl KindSet {
    /// The names, in order, with `+` between.
    fn names(self) -> String {
        let names: Vec<&str> = self.iter().map(Kind::name).collect();
        names.join("+")
    }

    /// The set of these names, each once and in order.
    fn from_names(names: &str) -> Option<KindSet> {
        let mut set = KindSet::default();
        for name in names.split('+') {
            set.insert(Kind::every().find(|kind| kind.name() == name)?);
        }
        (set.names() == names).then_some(set)
    }
}
