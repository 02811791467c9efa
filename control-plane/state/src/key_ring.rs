//! Which data keys the state still needs.
//!
//! A key may go once nothing is sealed with it: no present secret, and none in the history, from
//! which a rollback can bring a deleted one back; and no rotation wants it kept for what nodes made from
//! it. What was sealed with a key that is gone by the time it is applied is refused, so that nobody waits
//! for a value that never opens.

use std::collections::BTreeSet;

use provost_types::{Resource, SealedSecret, Spec};

use crate::{Problem, State, Transaction};

impl State {
    /// The terms of the data keys that some secret, past or present, is sealed with.
    pub fn used_key_terms(&self) -> BTreeSet<u64> {
        let past = self.history().iter().flat_map(|entry| &entry.changes);
        let past = past.flat_map(|change| change.old.iter().chain(&change.new)).filter_map(|r| sealed_with(r));
        self.resources().values().filter_map(|r| sealed_with(r)).chain(past).collect()
    }

    /// Secrets of a transaction that are sealed with no key of the ring.
    pub(crate) fn check_key_terms(&self, transaction: &Transaction) -> Vec<Problem> {
        let new = transaction.sealing_key.as_ref().map(|key| key.term);
        let missing = |spec: &Spec| match spec {
            Spec::Secret(_) | Spec::Connection(_) => {
                let term = sealed(spec)?.key_term;
                (new != Some(term) && !self.key_ring().contains_key(&term)).then_some(term)
            }
            _ => None,
        };
        let missing = transaction.puts.iter().filter_map(|draft| Some((draft.key(), missing(&draft.spec)?)));
        missing
            .map(|(key, term)| {
                let text = format!("is sealed with data key {term}, which is not in the ring");
                Problem::of_field(&key, "", "PV-CTL-CONFLICT", text).hint("read again and retry")
            })
            .collect()
    }
}

fn sealed_with(resource: &Resource) -> Option<u64> {
    sealed(&resource.spec).map(|s| s.key_term)
}

/// What of a resource is sealed.
pub fn sealed(spec: &Spec) -> Option<&SealedSecret> {
    match spec {
        Spec::Secret(spec) => spec.sealed.as_ref(),
        Spec::Connection(spec) => spec.sealed.as_ref(),
        _ => None,
    }
}
