//! One place where something was found.

use std::ops::Range;

use crate::{guard::Action, kind::Kind};

/// A protected value: what and where, never the value itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Offset of its first byte.
    pub start: usize,
    /// Offset after its last byte.
    pub end: usize,
    /// What it is.
    pub kind: Kind,
    /// The rest of a value that was longer than one finding may be: it starts where the one before it
    /// ends, and is not counted again.
    pub continued: bool,
    /// What is done about it, where the kind does not say: words of different dictionaries differ.
    pub(crate) action: Option<Action>,
}

impl Finding {
    pub(crate) fn new(kind: Kind, start: usize, end: usize) -> Finding {
        Finding { start, end, kind, continued: false, action: None }
    }

    /// Where it is.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}
