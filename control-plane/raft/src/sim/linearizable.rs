//! Invariant: each register is linearizable (Herlihy and Wing 1990): there is an order of the
//! operations that explains every answer and puts an operation that returned before another was
//! called before it.
//!
//! The search is Wing and Gong's (1993) with Lowe's memory of configurations already tried.
//! Operations of unknown outcome may come anywhere after their call or never; one whose value
//! nobody ever saw can be left out, because in an order with it nothing happens between it and
//! the next change that could tell. (A swap reports the value that it finds, so a swap that does
//! not take place sees.)

use std::collections::{BTreeSet, HashSet};

use super::record::{Action, Operation, Outcome, Record};

pub(super) fn check(record: &Record) -> Result<(), String> {
    let registers: BTreeSet<u8> = record.operations.iter().map(|op| op.register).collect();
    for register in registers {
        let operations: Vec<&Operation> = record.operations.iter().filter(|op| op.register == register).collect();
        if !explainable(&relevant(&operations)) {
            return Err(format!("no order of its operations explains register {register}"));
        }
    }
    Ok(())
}

/// Leaves out what had no effect and what nobody saw.
fn relevant<'a>(operations: &[&'a Operation]) -> Vec<&'a Operation> {
    let seen: BTreeSet<u64> = operations
        .iter()
        .filter_map(|op| match op.outcome {
            Outcome::Value(value) => Some(value),
            Outcome::Swapped { found, .. } => Some(found),
            _ => None,
        })
        // A swap of unknown outcome that took place saw what it expected.
        .chain(operations.iter().filter_map(|op| match (op.action, op.outcome) {
            (Action::Swap { expected }, Outcome::Unknown) => Some(expected),
            _ => None,
        }))
        .collect();
    let matters = |op: &&&Operation| match op.outcome {
        Outcome::Refused => false,
        Outcome::Unknown => op.action != Action::Read && seen.contains(&op.id),
        _ => true,
    };
    operations.iter().filter(matters).copied().collect()
}

/// The value after `op` if it may be next when the register holds `value`.
fn step(op: &Operation, value: u64) -> Option<u64> {
    match (op.action, op.outcome) {
        (Action::Read, Outcome::Value(read)) => (read == value).then_some(value),
        (Action::Write, _) => Some(op.id),
        (Action::Swap { expected }, Outcome::Swapped { found, .. }) => {
            (found == value).then_some(if found == expected { op.id } else { value })
        }
        (Action::Swap { expected }, _) => Some(if value == expected { op.id } else { value }),
        (Action::Read, _) => Some(value),
    }
}

/// Which operations are in the order so far, as bits.
type Placed = Vec<u64>;

fn has(placed: &Placed, n: usize) -> bool {
    placed[n / 64] >> (n % 64) & 1 == 1
}

fn explainable(operations: &[&Operation]) -> bool {
    let end = |op: &Operation| if op.outcome == Outcome::Unknown { u64::MAX } else { op.returned.unwrap_or(u64::MAX) };
    let mut sorted = operations.to_vec();
    sorted.sort_by_key(|op| op.called);
    let must = sorted.iter().filter(|op| op.outcome != Outcome::Unknown).count();

    let mut tried: HashSet<(Placed, u64)> = HashSet::new();
    let mut placed: Placed = vec![0; sorted.len().div_ceil(64)];
    let (mut value, mut done) = (0, 0);
    // (the operation placed, the value before it, where the search goes on when it was wrong)
    let mut path: Vec<(usize, u64)> = Vec::new();
    let mut from = 0;
    loop {
        if done == must {
            return true;
        }
        // Whatever comes next was called before the first return among those not placed.
        let open = |n: &usize| !has(&placed, *n);
        let first_return = (0..sorted.len()).filter(open).map(|n| end(sorted[n])).min().unwrap_or(u64::MAX);
        let candidate = (from..sorted.len())
            .take_while(|n| sorted[*n].called < first_return)
            .filter(open)
            .find_map(|n| step(sorted[n], value).map(|after| (n, after)));
        if let Some((n, after)) = candidate {
            placed[n / 64] |= 1 << (n % 64);
            if tried.insert((placed.clone(), after)) {
                path.push((n, value));
                done += usize::from(sorted[n].outcome != Outcome::Unknown);
                (value, from) = (after, 0);
            } else {
                placed[n / 64] &= !(1 << (n % 64));
                from = n + 1;
            }
            continue;
        }
        let Some((n, before)) = path.pop() else { return false };
        placed[n / 64] &= !(1 << (n % 64));
        done -= usize::from(sorted[n].outcome != Outcome::Unknown);
        (value, from) = (before, n + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations by (action, called, returned, outcome); ids from 1.
    fn holds(operations: &[(Action, u64, u64, Outcome)]) -> bool {
        let operations: Vec<Operation> = (1..)
            .zip(operations)
            .map(|(id, &(action, called, returned, outcome))| {
                let returned = Some(returned).filter(|_| outcome != Outcome::Unknown);
                Operation { id, node: 1, register: 0, action, called, returned, outcome }
            })
            .collect();
        let mut record = Record::default();
        record.operations = operations;
        check(&record).is_ok()
    }

    const OK: Outcome = Outcome::Written { index: 0 };
    fn found(found: u64) -> Outcome {
        Outcome::Swapped { index: 0, found }
    }
    use Action::{Read, Swap, Write};
    use Outcome::{Refused, Unknown, Value};

    #[test]
    fn tells_histories_that_an_order_explains_from_others() {
        for (history, expect) in [
            (&[(Write, 1, 2, OK), (Read, 3, 4, Value(1))][..], true),
            // A stale read.
            (&[(Write, 1, 2, OK), (Read, 3, 4, Value(0))], false),
            // During the write both are right, but not the old value after the new one was read.
            (&[(Write, 1, 6, OK), (Read, 2, 3, Value(0)), (Read, 4, 5, Value(1))], true),
            (&[(Write, 1, 6, OK), (Read, 2, 3, Value(1)), (Read, 4, 5, Value(0))], false),
            // Two writes at once come in either order, one order for everybody.
            (&[(Write, 1, 4, OK), (Write, 2, 3, OK), (Read, 5, 6, Value(1)), (Read, 7, 8, Value(1))], true),
            (&[(Write, 1, 4, OK), (Write, 2, 3, OK), (Read, 5, 6, Value(1)), (Read, 7, 8, Value(2))], false),
            // Unknown: early, late, never, but not undone and not before its call.
            (&[(Write, 1, 0, Unknown), (Read, 2, 3, Value(0)), (Read, 4, 5, Value(1))], true),
            (&[(Write, 1, 0, Unknown), (Read, 2, 3, Value(0)), (Read, 4, 5, Value(0))], true),
            (&[(Write, 1, 0, Unknown), (Read, 2, 3, Value(1)), (Read, 4, 5, Value(0))], false),
            (&[(Read, 1, 2, Value(2)), (Write, 3, 0, Unknown)], false),
            // What was refused is never seen.
            (&[(Write, 1, 2, Refused), (Read, 3, 4, Value(0))], true),
            (&[(Write, 1, 2, Refused), (Read, 3, 4, Value(1))], false),
            // Of two swaps of the same value one finds the other.
            (&[(Swap { expected: 0 }, 1, 4, found(0)), (Swap { expected: 0 }, 2, 3, found(1))], true),
            (&[(Swap { expected: 0 }, 1, 4, found(0)), (Swap { expected: 0 }, 2, 3, found(0))], false),
            (&[(Swap { expected: 0 }, 1, 0, Unknown), (Read, 2, 3, Value(1))], true),
            (&[(Write, 1, 2, OK), (Swap { expected: 0 }, 3, 0, Unknown), (Read, 4, 5, Value(2))], false),
            (
                &[
                    (Write, 1, 0, Unknown),
                    (Swap { expected: 1 }, 2, 0, Unknown),
                    (Read, 3, 4, Value(2)),
                    (Read, 5, 6, Value(2)),
                ],
                true,
            ),
        ] {
            assert_eq!(holds(history), expect, "{history:?}");
        }
    }
}
