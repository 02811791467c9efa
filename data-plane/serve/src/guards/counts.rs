//! What guards found since the start, by kind and action.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use provost_data_guards::{Action, Kind, Tally};

/// Counts of all tenants together: a metric must not tell one what another sends.
#[derive(Debug, Default)]
pub(crate) struct GuardCounts(Mutex<BTreeMap<(Kind, Action), u64>>);

impl GuardCounts {
    /// Adds what was found in one call; nothing found costs nothing.
    pub(crate) fn add(&self, tally: &Tally) {
        if tally.is_empty() {
            return;
        }
        let mut counts = self.0.lock();
        for (kind, action, count) in tally.iter() {
            *counts.entry((kind, action)).or_default() += u64::from(count);
        }
    }

    /// By the names of kind and action.
    pub(crate) fn read(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.0.lock().iter().map(|((kind, action), n)| (kind.name(), action.name(), *n)).collect()
    }
}

/// A tally as records have it: `card:mask=2`.
pub(super) fn written(tally: &Tally) -> Vec<String> {
    tally.iter().map(|(kind, action, count)| format!("{kind}:{}={count}", action.name())).collect()
}
