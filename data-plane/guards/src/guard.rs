//! What to do about what is found.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    detectors::Detectors,
    finding::Finding,
    kind::{Counts, Kind},
    mask,
    paths::Paths,
    replace::{Form, With},
    stand_in::{StandIns, Vault},
    stream::GuardStream,
    tally::Tally,
    words::Words,
};

/// What to do about a kind. Of two the greater one is the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Count it.
    Report,
    /// Count it, and give it back where a token stands in for it.
    Reveal,
    /// Count it and put a token in its place.
    Tokenise,
    /// Count it and write over it.
    Mask,
    /// Count it and let nothing pass.
    Block,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 5] = [Action::Report, Action::Reveal, Action::Tokenise, Action::Mask, Action::Block];

    /// The stable name: what records and metrics say.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Report => "report",
            Action::Reveal => "reveal",
            Action::Tokenise => "tokenise",
            Action::Mask => "mask",
            Action::Block => "block",
        }
    }

    /// What holds for whom tokens are opened.
    pub(crate) fn revealing(self) -> Action {
        if self == Action::Tokenise { Action::Reveal } else { self }
    }
}

/// An action for each kind that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules([Option<Action>; Kind::COUNT]);

impl Rules {
    /// The same action for every kind.
    pub fn all(action: Action) -> Rules {
        Rules([Some(action); Kind::COUNT])
    }

    /// With this action for this kind.
    pub fn with(mut self, kind: Kind, action: Action) -> Rules {
        if let Some(own) = self.0.get_mut(kind as usize) {
            *own = Some(action);
        }
        self
    }

    /// With this action for this kind, or the one that it has where that is stricter.
    pub fn at_least(mut self, kind: Kind, action: Action) -> Rules {
        if let Some(own) = self.0.get_mut(kind as usize) {
            *own = (*own).max(Some(action));
        }
        self
    }

    /// Each kind with the stricter action of both.
    pub fn stricter(self, other: &Rules) -> Rules {
        other.kinds().fold(self, |all, kind| match other.action(kind) {
            Some(action) => all.at_least(kind, action),
            None => all,
        })
    }

    /// Without this kind.
    pub fn without(mut self, kind: Kind) -> Rules {
        if let Some(own) = self.0.get_mut(kind as usize) {
            *own = None;
        }
        self
    }

    /// The same kinds, only counted: how rules are tried before they take effect.
    pub fn report_only(self) -> Rules {
        Rules(self.0.map(|action| action.map(|_| Action::Report)))
    }

    /// The same kinds for whom tokens are opened.
    pub fn revealing(self) -> Rules {
        Rules(self.0.map(|action| action.map(Action::revealing)))
    }

    fn any(&self, wanted: Action) -> bool {
        self.0.contains(&Some(wanted))
    }

    /// What is done about a kind; `None` if it is not looked for.
    pub fn action(&self, kind: Kind) -> Option<Action> {
        self.0.get(kind as usize).copied().flatten()
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        Kind::ALL.iter().copied().filter(|k| self.action(*k).is_some())
    }
}

/// A call was stopped because of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "PV-GUARD-BLOCKED: the text holds a value of kind {kind}, which may not pass here; remove it, or ask for it to be masked"
)]
pub struct Blocked {
    /// The first kind that stopped it.
    pub kind: Kind,
}

/// What becomes of a text.
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passes as it is.
    Pass,
    /// It passes in this form; of the same length but for tokens.
    Masked(Vec<u8>),
    /// It does not pass.
    Blocked(Blocked),
}

/// What was found in a text, and what becomes of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Inspection {
    /// How many of each kind.
    pub counts: Counts,
    /// What becomes of the text.
    pub verdict: Verdict,
}

/// Rules, and the detectors for them. One guard serves any number of calls at once.
#[derive(Debug, Clone)]
pub struct Guard {
    detectors: Detectors,
    rules: Rules,
    paths: Paths,
    /// It makes tokens, or opens them.
    tokenises: bool,
    reveals_words: bool,
}

impl Guard {
    /// A guard with these rules.
    pub fn new(rules: Rules) -> Guard {
        let detectors = Detectors::new(rules.kinds());
        Guard { detectors, rules, paths: Paths::default(), tokenises: false, reveals_words: false }.noted()
    }

    /// With words and places of a tenant's own.
    pub fn with(self, words: Vec<Arc<Words>>, paths: Paths) -> Guard {
        Guard { detectors: self.detectors.with_words(words), paths, ..self }.noted()
    }

    /// Notes what calls ask for often.
    fn noted(mut self) -> Guard {
        let any = |action| self.rules.any(action) || self.paths.any(action) || self.detectors.any_word(action);
        self.tokenises = any(Action::Tokenise) || any(Action::Reveal);
        self.reveals_words = self.detectors.any_word(Action::Reveal);
        self
    }

    /// Judges a whole text. Without a vault what would be tokenised is masked.
    pub fn inspect(&self, text: &[u8]) -> Inspection {
        self.inspect_with(text, None)
    }

    /// Judges a whole text, with tokens of this vault.
    pub fn inspect_with(&self, text: &[u8], vault: Option<&dyn Vault>) -> Inspection {
        let mut stand_ins = StandIns::new(vault);
        let found = self.detectors.scan_beside(text, &mut stand_ins);
        let (counts, spots) = (count(&found), &stand_ins.spots);
        let passes = || spots.is_empty() && found.iter().all(|f| self.action(f) <= Action::Reveal);
        let verdict = match self.blocked(&found) {
            Some(blocked) => Verdict::Blocked(blocked),
            None if passes() => Verdict::Pass,
            None => {
                let (mut out, mut given_back) = (Vec::with_capacity(text.len()), Tally::default());
                let with = With { form: Form::Sent, vault };
                self.render((text, 0..text.len()), (&found, spots), with, &mut given_back, &mut out);
                if out == text { Verdict::Pass } else { Verdict::Masked(out) }
            }
        };
        Inspection { counts, verdict }
    }

    /// Judges a text that comes in chunks.
    pub fn stream(&self) -> GuardStream<&Guard> {
        GuardStream::new(self)
    }

    /// Whether it makes tokens, or opens them.
    pub(crate) fn tokenises(&self) -> bool {
        self.tokenises
    }

    /// Whether it gives any value back.
    pub(crate) fn reveals(&self) -> bool {
        self.rules.any(Action::Reveal) || self.paths.reveal() || self.reveals_words
    }

    pub(crate) fn reveals_words(&self) -> bool {
        self.reveals_words
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What is done about a finding.
    pub(crate) fn action(&self, finding: &Finding) -> Action {
        finding.action.or(self.rules.action(finding.kind)).unwrap_or(Action::Report)
    }

    pub(crate) fn detectors(&self) -> &Detectors {
        &self.detectors
    }

    /// The first finding that lets nothing pass.
    pub(crate) fn blocked(&self, found: &[Finding]) -> Option<Blocked> {
        found.iter().find(|f| self.action(f) == Action::Block).map(|f| Blocked { kind: f.kind })
    }

    /// Hides what must be in `out`, a copy of `buf` from `offset` on.
    pub(crate) fn mask(&self, buf: &[u8], found: &[Finding], offset: usize, out: &mut [u8]) {
        for finding in found.iter().filter(|f| self.masks(f)) {
            mask::hide(buf, finding, &mut out[finding.start - offset..finding.end - offset]);
        }
    }

    /// Adds what was found, by kind and action.
    pub(crate) fn tally(&self, found: &[Finding], tally: &mut Tally) {
        found.iter().filter(|f| !f.continued).for_each(|f| tally.add(f.kind, self.action(f)));
    }

    fn masks(&self, finding: &Finding) -> bool {
        self.action(finding) > Action::Reveal
    }
}

pub(crate) fn count(found: &[Finding]) -> Counts {
    let mut counts = Counts::default();
    found.iter().filter(|f| !f.continued).for_each(|f| counts.add(f.kind));
    counts
}
