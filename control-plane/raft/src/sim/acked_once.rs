//! Invariant: what a client was told is so. A command acknowledged at an index is in every
//! machine's history at that index; one that was refused is in none; none is there twice.

use std::collections::BTreeMap;

use super::record::{Outcome, Record};

pub(super) fn check(record: &Record) -> Result<(), String> {
    for (node, last) in &record.finals {
        let mut places = BTreeMap::new();
        for (index, operation) in &last.done {
            if let Some(before) = places.insert(*operation, *index) {
                return Err(format!("node {node} applied operation {operation} twice, at {before} and {index}"));
            }
        }
        for operation in &record.operations {
            let place = places.get(&operation.id).copied();
            match (operation.outcome, place) {
                (Outcome::Refused, Some(index)) => {
                    return Err(format!("node {node} applied the refused {operation:?} at {index}"));
                }
                _ if operation.index().is_some() && operation.index() != place => {
                    return Err(format!("node {node} has the acknowledged {operation:?} at {place:?}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::record::{Action, Final};

    fn record(outcome: Outcome, done: &[(u64, u64)]) -> Record {
        let mut record = Record::default();
        let id = record.called(1, 0, Action::Write);
        record.returned(id, outcome);
        record.finals.insert(1, Final { done: done.to_vec(), ..Final::default() });
        record
    }

    #[test]
    fn finds_what_is_lost_moved_doubled_or_should_not_be() {
        let acked = Outcome::Written { index: 5 };
        for (outcome, done, holds) in [
            (acked, &[(5, 1)][..], true),
            (acked, &[], false),
            (acked, &[(6, 1)], false),
            (acked, &[(5, 1), (6, 1)], false),
            (Outcome::Unknown, &[], true),
            (Outcome::Unknown, &[(9, 1)], true),
            (Outcome::Unknown, &[(8, 1), (9, 1)], false),
            (Outcome::Refused, &[], true),
            (Outcome::Refused, &[(5, 1)], false),
        ] {
            assert_eq!(check(&record(outcome, done)).is_ok(), holds, "{outcome:?} {done:?}");
        }
    }
}
