//! A whole JSON text under a guard.
//!
//! Purpose: find what [`Guard`] looks for in the values of a JSON text, and write over it so that the
//! text stays JSON and nothing else of it changes.
//! How: the bytes are scanned as they stand. Only where something is found, where escapes may hide
//! something, or where the guard protects places, the text is walked value by value, and a list of
//! edits is made.
//!
//! Invariants:
//! - What passes unchanged is not copied. What is changed differs in the protected values only.
//! - A string with escapes that can hide something (`\u0034`, `\/`) is looked at decoded, also where
//!   the decoded text holds such escapes again, up to [`LEVELS_MAX`] times.
//! - Names of members are never changed. What would have to be masked there blocks, and so it is where
//!   the [`Layout`] says that a value cannot be changed.
//! - Where values may be given back, two texts are made: what is kept holds tokens, what is sent values.
//! - A number that holds a protected value becomes a string; a number inside a text that holds JSON
//!   stays a number.
//!
//! Left out: values divided over several values of the text; other encodings (base64, percent); numbers
//! with an exponent.

mod decoded;
mod scanner;
mod spans;
mod strings;
mod walk;

use provost_mcp::RawJson;

use crate::{
    edit::apply,
    guard::{Blocked, Guard},
    replace::{Form, With},
    stand_in::{StandIns, Vault},
    tally::Tally,
};

pub use spans::mask_spans;
use walk::Walk;

/// How often a text is decoded in search of what its escapes hide.
pub const LEVELS_MAX: u8 = 4;

/// What the members of a JSON text mean to a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Members of the root that are not looked at: they are the protocol's.
    pub skipped: &'static [&'static str],
    /// Members of the root that are looked at and cannot be changed: what would be masked blocks.
    pub fixed: &'static [&'static str],
    /// Members of the root's `_meta` that are not looked at; one that ends in `/` stands for all that
    /// begin so.
    pub meta_skipped: &'static [&'static str],
    /// Members, at any depth, whose texts are JSON: `$` of a path is in each of them too. One that has no one reading, as it
    /// is cut off or names a member twice, is protected whole where any place is.
    pub json_texts: &'static [&'static str],
    /// Where `$` of a path is.
    pub root: Root,
}

/// Where `$` of a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Nowhere: paths do not hold here.
    Nowhere,
    /// The whole text.
    Whole,
    /// A member of the root.
    Member(&'static str),
    /// A member of the root, and each text under one of these names, at any depth, that is itself a
    /// JSON object or array.
    MemberAndTexts(&'static str, &'static [&'static str]),
}

impl Layout {
    /// Everything is content.
    pub const PLAIN: Layout =
        Layout { skipped: &[], fixed: &[], meta_skipped: &[], json_texts: &[], root: Root::Whole };
}

/// What was found in a JSON text, and what becomes of it.
#[derive(Debug, Clone, Default)]
pub struct JsonInspection {
    /// How many values of each kind, and what is done about them.
    pub tally: Tally,
    /// It does not pass, and why.
    pub blocked: Option<Blocked>,
    /// The text without what is masked or blocked; `None` if nothing is. If it does not pass, this is
    /// what may be recorded of it: names of members are masked too.
    pub rewritten: Option<RawJson>,
    /// What is sent on, where that is another: tokens that may be given back are opened in it, and what
    /// may be given back is plain.
    pub sent: Option<RawJson>,
}

impl Guard {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.detectors().is_empty() && self.paths().is_empty()
    }

    /// Judges a JSON text. Without a vault what would be tokenised is masked.
    pub fn inspect_json(&self, json: &RawJson, layout: &Layout) -> JsonInspection {
        self.inspect_json_with(json, layout, None)
    }

    /// Judges a JSON text, with tokens of this vault.
    pub fn inspect_json_with(&self, json: &RawJson, layout: &Layout, vault: Option<&dyn Vault>) -> JsonInspection {
        let text = json.as_bytes();
        let mut stand_ins = StandIns::new(vault);
        let found = self.detectors().scan_beside(text, &mut stand_ins);
        let opens = self.reveals() && !stand_ins.spots.is_empty();
        if found.is_empty() && !opens && self.paths().is_empty() && !decoded::may_hide(text) {
            return JsonInspection::default();
        }
        let walk = |form| Walk::new(self, text, layout, (&found, &stand_ins.spots), With { form, vault }).run();
        let mut kept = walk(Form::Kept);
        let changed = |edits: Vec<_>| (!edits.is_empty()).then(|| RawJson::from_checked(apply(text, edits).into()));
        let rewritten = changed(std::mem::take(&mut kept.edits));
        let sent = self.reveals().then(|| {
            let sent = walk(Form::Sent);
            kept.tally.merge(&sent.given_back);
            changed(sent.edits).unwrap_or_else(|| json.clone())
        });
        let as_kept = rewritten.as_ref().unwrap_or(json).as_bytes();
        let sent = sent.filter(|sent| sent.as_bytes() != as_kept);
        JsonInspection { tally: kept.tally, blocked: kept.blocked, rewritten, sent }
    }
}

/// What the contents of a string say.
pub(crate) fn decoded_once(raw: &[u8]) -> Vec<u8> {
    decoded::Decoded::of(raw, 0).text
}
