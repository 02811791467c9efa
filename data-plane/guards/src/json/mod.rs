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
//! - A number that holds a protected value becomes a string; a number inside a text that holds JSON
//!   stays a number.
//!
//! Left out: values divided over several values of the text; other encodings (base64, percent); numbers
//! with an exponent.

mod decoded;
mod edit;
mod scanner;
mod strings;
mod walk;

use bytes::Bytes;
use provost_mcp::RawJson;

use crate::{
    guard::{Blocked, Guard},
    tally::Tally,
};

use edit::{Edit, apply};
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
    pub const PLAIN: Layout = Layout { skipped: &[], fixed: &[], meta_skipped: &[], root: Root::Whole };
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
}

impl Guard {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.detectors().is_empty() && self.paths().is_empty()
    }

    /// Judges a JSON text.
    pub fn inspect_json(&self, json: &RawJson, layout: &Layout) -> JsonInspection {
        let text = json.as_bytes();
        let found = self.detectors().scan(text);
        if found.is_empty() && self.paths().is_empty() && !decoded::may_hide(text) {
            return JsonInspection::default();
        }
        let walked = Walk::new(self, json, layout, &found).run();
        let rewritten = (!walked.edits.is_empty()).then(|| {
            let bytes = Bytes::from(apply(text, walked.edits));
            RawJson::from_checked(bytes)
        });
        JsonInspection { tally: walked.tally, blocked: walked.blocked, rewritten }
    }
}
