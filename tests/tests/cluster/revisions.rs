//! Do revisions follow real time, over all keys together?
//!
//! The revision is the place in the one log, so this is strict serializability of the whole group, a
//! stronger claim than a linearizable register per key and cheap to judge: what began after another
//! operation had returned has no smaller revision, and a write a greater one.

use std::collections::HashMap;

use crate::history::{Action, Operation};

/// The first contradiction between revisions and time.
pub fn check(operations: &[Operation]) -> Result<(), String> {
    let known: Vec<(&Operation, u64, u64)> =
        operations.iter().filter_map(|o| Some((o, o.returned?, o.revision?))).collect();
    let mut writers: HashMap<u64, &Operation> = HashMap::new();
    for (operation, _, revision) in &known {
        if matches!(operation.action, Action::Write(_))
            && let Some(other) = writers.insert(*revision, operation)
        {
            return Err(format!("two writes at one revision:\n  {other:?}\n  {operation:?}"));
        }
    }
    let mut by_begin = known.clone();
    by_begin.sort_by_key(|(o, ..)| o.invoked);
    let mut by_end = known;
    by_end.sort_by_key(|(_, returned, _)| *returned);
    let mut ended = by_end.into_iter().peekable();
    let mut latest: Option<(&Operation, u64)> = None;
    for (operation, _, revision) in by_begin {
        while let Some((before, _, seen)) = ended.next_if(|(_, returned, _)| *returned < operation.invoked) {
            if latest.is_none_or(|(_, most)| seen > most) {
                latest = Some((before, seen));
            }
        }
        let Some((before, most)) = latest else { continue };
        let fine = match operation.action {
            Action::Write(_) => revision > most,
            Action::Read(_) => revision >= most,
        };
        if !fine {
            return Err(format!("went back in time:\n  {before:?}\n  then {operation:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, invoked: u64, returned: u64, revision: u64) -> Operation {
        Operation {
            key: format!("k{revision}"),
            action,
            invoked,
            returned: Some(returned),
            revision: Some(revision),
            via: 1,
        }
    }

    #[test]
    fn revisions_follow_time() {
        let write = |invoked, returned, revision| operation(Action::Write(revision), invoked, returned, revision);
        let read = |invoked, returned, revision| operation(Action::Read(None), invoked, returned, revision);
        let table: [(&str, bool, Vec<Operation>); 7] = [
            ("nothing", true, vec![]),
            ("forward", true, vec![write(0, 1, 5), read(2, 3, 5), write(4, 5, 6), read(6, 7, 9)]),
            ("a read of an older state", false, vec![write(0, 1, 5), read(2, 3, 4)]),
            ("a write before what is acknowledged", false, vec![write(0, 1, 5), write(2, 3, 4)]),
            ("a write at what was read", false, vec![read(0, 1, 5), write(2, 3, 5)]),
            ("overlapping", true, vec![write(0, 10, 5), write(5, 15, 4), read(5, 15, 3)]),
            ("one revision for two writes", false, vec![write(0, 10, 5), write(0, 10, 5)]),
        ];
        for (name, expect, history) in table {
            assert_eq!(check(&history).is_ok(), expect, "{name}");
        }
    }
}
