//! The walk through the values of a JSON text.

use std::{borrow::Cow, ops::Range};

use provost_mcp::JsonLimits;

use super::{Layout, Root, decoded::Decoded, scanner::Scanner};
use crate::{
    edit::{Edit, apply_in},
    finding::{Finding, groups},
    guard::{Action, Blocked, Guard},
    kind::Kind,
    paths::Taken,
    replace::{Form, With, Written},
    stand_in::Spot,
    tally::Tally,
};

/// What stands in place of a value at a protected place.
pub(super) const MASKED: &[u8] = b"\"[masked]\"";

/// The deepest nesting that is walked in a text that is not known to be valid, so that the walk has a bound.
const DEEPEST: usize = JsonLimits::MAX_DEPTH as usize;

/// What may be done with a part of the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Content,
    Fixed,
    /// `_meta`: what the protocol has in it is skipped.
    Meta,
    Skipped,
}

pub(super) struct Walk<'a> {
    pub(super) guard: &'a Guard,
    pub(super) text: &'a [u8],
    pub(super) layout: &'a Layout,
    pub(super) scanner: Scanner<'a>,
    /// What was found in the bytes as they stand, and how much of it has been passed.
    found: &'a [Finding],
    passed: usize,
    /// The tokens in the bytes as they stand.
    pub(super) spots: &'a [Spot],
    pub(super) with: With<'a>,
    depth: usize,
    /// Nothing is looked for but protected places.
    pub(super) only_places: bool,
    /// Nothing is looked for: what was found is written over.
    pub(super) only_spans: bool,
    /// The text may be no JSON, or name a member twice.
    broken: bool,
    pub(super) out: Walked,
}

/// What a walk came to.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) edits: Vec<Edit>,
    pub(super) tally: Tally,
    pub(super) blocked: Option<Blocked>,
    /// Values that came out of tokens.
    pub(super) given_back: Tally,
    /// A broken text goes deeper than was walked.
    pub(super) too_deep: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        guard: &'a Guard,
        text: &'a [u8],
        layout: &'a Layout,
        (found, spots): (&'a [Finding], &'a [Spot]),
        with: With<'a>,
    ) -> Self {
        let (scanner, out) = (Scanner::new(text), Walked::default());
        Self {
            guard,
            text,
            layout,
            scanner,
            found,
            passed: 0,
            spots,
            with,
            depth: 0,
            only_places: false,
            only_spans: false,
            broken: false,
            out,
        }
    }

    pub(super) fn run(mut self) -> Walked {
        let taken = if self.layout.root == Root::Whole { self.guard.paths().root() } else { Taken::default() };
        self.value(Part::Content, &taken, b"");
        self.out
    }

    /// The same of a text that begins like JSON and has no one reading: cut off, a member twice, or something behind it. Each
    /// object and list of it is taken as far as it goes, with `$` there.
    pub(super) fn run_broken(mut self) -> Walked {
        self.broken = true;
        let taken = self.guard.paths().root();
        while let Some(next) = self.scanner.peek() {
            match next {
                b'{' | b'[' => self.value(Part::Content, &taken, b""),
                b'"' => drop(self.scanner.string()),
                _ => self.scanner.at += 1,
            }
        }
        self.out
    }

    fn value(&mut self, part: Part, taken: &Taken, name: &[u8]) {
        match self.scanner.peek() {
            Some(b'{' | b'[') if self.broken && self.depth >= DEEPEST => {
                self.out.too_deep = true;
                self.scanner.at = self.text.len();
            }
            Some(b'{') => self.object(part, taken),
            Some(b'[') => self.array(part, taken, name),
            Some(b'"') => {
                let inner = self.scanner.string();
                self.string(part, name, inner);
            }
            Some(_) => {
                let token = self.scanner.scalar();
                self.scalar(part, token);
            }
            None => {}
        }
    }

    fn object(&mut self, part: Part, taken: &Taken) {
        self.scanner.at += 1;
        self.depth += 1;
        while self.scanner.peek() == Some(b'"') {
            let key = self.scanner.string();
            let raw = self.text.get(key.clone()).unwrap_or_default();
            let name: Cow<'_, [u8]> =
                if raw.contains(&b'\\') { Decoded::of(raw, 0).text.into() } else { Cow::Borrowed(raw) };
            let part = match (self.depth, part) {
                (1, _) => self.part_of(&name),
                (2, Part::Meta) => self.part_of_meta(&name),
                _ => part,
            };
            self.key(part, key);
            self.scanner.take(b':');
            if self.depth == 1 && self.is_root(&name) {
                self.value(part, &self.guard.paths().root(), &name);
            } else {
                self.below(part, taken, Some(&name), &name);
            }
            if !self.scanner.take(b',') {
                break;
            }
        }
        self.scanner.take(b'}');
        self.depth -= 1;
    }

    /// `name` is that of the array, and so of its items.
    fn array(&mut self, part: Part, taken: &Taken, name: &[u8]) {
        self.scanner.at += 1;
        self.depth += 1;
        while self.scanner.peek().is_some_and(|b| b != b']') {
            self.below(part, taken, None, name);
            if !self.scanner.take(b',') {
                break;
            }
        }
        self.scanner.take(b']');
        self.depth -= 1;
    }

    /// A value one step below, by its name or as an item.
    fn below(&mut self, part: Part, taken: &Taken, step: Option<&[u8]>, name: &[u8]) {
        if taken.is_empty() || part == Part::Skipped {
            return self.value(part, taken, name);
        }
        let below = self.guard.paths().step(taken, step);
        let Some(action) = below.hit else { return self.value(part, &below.taken, name) };
        let stays = action == Action::Report || (action == Action::Reveal && self.with.form == Form::Sent);
        if stays {
            if self.is_something() {
                self.out.tally.add(Kind::Path, action);
            }
            return self.value(part, &below.taken, name);
        }
        let there = self.is_something();
        let range = self.scanner.value();
        self.pass(range.end);
        if there {
            self.stop(part, action, Kind::Path);
            let tokenised = if action < Action::Mask { self.token_of(&range) } else { None };
            // What no token can stand for is masked.
            let done = if action == Action::Tokenise && tokenised.is_none() { Action::Mask } else { action };
            self.out.tally.add(Kind::Path, done);
            let with = tokenised.unwrap_or_else(|| MASKED.to_vec());
            self.out.edits.push(Edit { start: range.start, end: range.end, with });
        }
    }

    fn part_of(&self, name: &[u8]) -> Part {
        let is_in = |names: &[&str]| names.iter().any(|n| n.as_bytes() == name);
        match () {
            () if is_in(self.layout.skipped) => Part::Skipped,
            () if is_in(self.layout.fixed) => Part::Fixed,
            () if name == b"_meta" && !self.layout.meta_skipped.is_empty() => Part::Meta,
            () => Part::Content,
        }
    }

    fn part_of_meta(&self, name: &[u8]) -> Part {
        let is_skipped = |skipped: &&str| match skipped.ends_with('/') {
            true => name.starts_with(skipped.as_bytes()),
            false => name == skipped.as_bytes(),
        };
        if self.layout.meta_skipped.iter().any(is_skipped) { Part::Skipped } else { Part::Content }
    }

    fn is_root(&self, name: &[u8]) -> bool {
        match self.layout.root {
            Root::Nowhere | Root::Whole => false,
            Root::Member(root) | Root::MemberAndTexts(root, _) => name == root.as_bytes(),
        }
    }

    /// Whether the next value is anything: `null` and what is empty hold nothing to protect.
    fn is_something(&mut self) -> bool {
        self.scanner.peek();
        let rest = self.text.get(self.scanner.at..).unwrap_or_default();
        !(rest.is_empty() || rest.starts_with(b"null") || rest.starts_with(b"\"\""))
    }

    /// The findings up to `end` that were not passed yet.
    pub(super) fn pass(&mut self, end: usize) -> &'a [Finding] {
        let rest = self.found.get(self.passed..).unwrap_or_default();
        let count = rest.iter().take_while(|f| f.start < end).count();
        self.passed += count;
        rest.get(..count).unwrap_or_default()
    }

    /// Notes that the text does not pass, if so it is.
    pub(super) fn stop(&mut self, part: Part, action: Action, kind: Kind) {
        if action == Action::Block || (part == Part::Fixed && action > Action::Reveal) {
            self.out.blocked.get_or_insert(Blocked { kind });
        }
    }

    /// Names are looked at, and are never changed in what goes on.
    fn key(&mut self, part: Part, inner: Range<usize>) {
        self.string(if matches!(part, Part::Content | Part::Meta) { Part::Fixed } else { part }, b"", inner);
    }

    fn scalar(&mut self, part: Part, token: Range<usize>) {
        let found = self.pass(token.end);
        if self.only_spans {
            return self.over_scalar(part, &token, found);
        }
        if found.is_empty() || part == Part::Skipped {
            return;
        }
        self.judge(part, found);
        let written = Written::Number(token.start, token.end);
        let instead = groups(found).filter_map(|group| self.guard.instead(self.text, group, written, self.with));
        let edits: Vec<Edit> = instead.map(|(place, with)| Edit { start: place.start, end: place.end, with }).collect();
        if !edits.is_empty() {
            let mut with = b"\"".to_vec();
            apply_in(self.text, token.clone(), edits, &mut with);
            with.push(b'"');
            self.out.edits.push(Edit { start: token.start, end: token.end, with });
        }
    }
}
