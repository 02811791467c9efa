//! Invariant: logs and machines agree. No two machines are ever given different commands at an
//! index; when all is healed they hold the same state, and logs have the same entry wherever both
//! have one.

use super::record::Record;

pub(super) fn check(record: &Record) -> Result<(), String> {
    if let Some(first) = record.disagreements.first() {
        return Err(first.clone());
    }
    let mut finals = record.finals.iter();
    let Some((first, expected)) = finals.next() else { return Ok(()) };
    for (node, last) in finals {
        if (last.applied, &last.done, &last.values) != (expected.applied, &expected.done, &expected.values) {
            return Err(format!("nodes {first} and {node} ended in different states"));
        }
        for entry in &last.log {
            let other = expected.log.iter().find(|other| other.log_id.index == entry.log_id.index);
            if other.is_some_and(|other| other != entry) {
                return Err(format!("nodes {first} and {node} have different entries at {}", entry.log_id.index));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use openraft::{EntryPayload, vote::RaftLeaderId};

    use super::*;
    use crate::{
        raft_types::{LogEntry, LogId, Vote},
        sim::record::Final,
    };

    fn entry(term: u64, index: u64) -> LogEntry {
        let log_id = LogId::new(Vote::new(term, 1).leader_id.to_committed(), index);
        LogEntry { log_id, payload: EntryPayload::Blank }
    }

    fn record(first: Final, second: Final) -> Record {
        let mut record = Record::default();
        record.finals.extend([(1, first), (2, second)]);
        record
    }

    #[test]
    fn finds_different_states_entries_and_commands() {
        let same = Final { done: vec![(1, 7)], log: vec![entry(1, 1), entry(2, 2)], ..Final::default() };
        let shorter = Final { log: vec![entry(2, 2)], ..same.clone() };
        assert_eq!(check(&record(same.clone(), shorter)), Ok(()), "one was purged further");
        let other_term = Final { log: vec![entry(1, 1), entry(3, 2)], ..same.clone() };
        assert!(check(&record(same.clone(), other_term)).is_err());
        let other_state = Final { done: vec![(1, 8)], ..same.clone() };
        assert!(check(&record(same.clone(), other_state)).is_err());
        let mut record = record(same.clone(), same);
        record.applied(1, 5, b"a");
        record.applied(2, 5, b"a");
        assert_eq!(check(&record), Ok(()));
        record.applied(2, 5, b"b");
        assert!(check(&record).is_err());
    }
}
