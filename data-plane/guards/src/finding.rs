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

/// Findings that overlap, together.
pub(crate) fn groups(found: &[Finding]) -> impl Iterator<Item = &[Finding]> {
    let mut rest = found;
    std::iter::from_fn(move || {
        let mut end = rest.first()?.end;
        let count = rest.iter().skip(1).take_while(|f| {
            let overlaps = f.start < end;
            end = end.max(if overlaps { f.end } else { end });
            overlaps
        });
        let (group, after) = rest.split_at(count.count() + 1);
        rest = after;
        Some(group)
    })
}

/// Where a group begins and ends.
pub(crate) fn extent(group: &[Finding]) -> Range<usize> {
    let start = group.iter().map(|f| f.start).min().unwrap_or_default();
    start..group.iter().map(|f| f.end).max().unwrap_or(start)
}
