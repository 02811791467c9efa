//! How many values of each kind there were, and what was done about them.

use std::collections::BTreeMap;

use crate::{guard::Action, kind::Kind};

/// Counts by kind and action; never a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(Kind, Action), u32>);

impl Tally {
    pub(crate) fn add(&mut self, kind: Kind, action: Action) {
        self.add_many(kind, action, 1);
    }

    /// Counts so many values; none leave no trace.
    pub fn add_many(&mut self, kind: Kind, action: Action, count: u32) {
        if count > 0 {
            let n = self.0.entry((kind, action)).or_default();
            *n = n.saturating_add(count);
        }
    }

    /// Adds what another part of the same call held.
    pub fn merge(&mut self, other: &Tally) {
        for (key, count) in &other.0 {
            let n = self.0.entry(*key).or_default();
            *n = n.saturating_add(*count);
        }
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was found, in the order of kinds and actions.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, Action, u32)> + '_ {
        self.0.iter().map(|((kind, action), n)| (*kind, *action, *n))
    }
}
