//! The judge judged: known histories, and a slow judge that tries every order.

use proptest::prelude::*;

use crate::{
    history::{Action, Operation, Value},
    linearizable::{Fault, check, check_keys},
};

const INITIAL: Value = 0;
const PLENTY: usize = 1_000_000;

fn write(value: Value, invoked: u64, returned: impl Into<Option<u64>>) -> Operation {
    operation(Action::Write(value), invoked, returned.into())
}

fn read(value: Value, invoked: u64, returned: u64) -> Operation {
    operation(Action::Read(Some(value)), invoked, Some(returned))
}

fn operation(action: Action, invoked: u64, returned: Option<u64>) -> Operation {
    Operation { key: "k".into(), action, invoked, returned, revision: None, via: 1 }
}

fn judge(history: &[Operation]) -> Result<(), Fault> {
    check(&history.iter().collect::<Vec<_>>(), Some(INITIAL), PLENTY)
}

#[test]
fn known_histories() {
    let unknown = None;
    let absent = operation(Action::Read(None), 30, Some(40));
    let table: Vec<(&str, bool, Vec<Operation>)> = vec![
        ("nothing happened", true, vec![]),
        ("the initial value", true, vec![read(0, 0, 10)]),
        ("one after the other", true, vec![write(1, 0, 10), read(1, 20, 30), write(2, 40, 50), read(2, 60, 70)]),
        ("a stale read", false, vec![write(1, 0, 10), write(2, 20, 30), read(1, 40, 50)]),
        ("the initial value after a write", false, vec![write(1, 0, 10), read(0, 20, 30)]),
        ("a lost write", false, vec![write(1, 0, 10), read(1, 20, 30), read(0, 40, 50)]),
        ("a key that vanished", false, vec![write(1, 0, 10), absent]),
        ("a value of nobody", false, vec![read(7, 0, 10)]),
        ("read while written: new", true, vec![write(1, 0, 100), read(1, 10, 20)]),
        ("read while written: old", true, vec![write(1, 0, 100), read(0, 10, 20)]),
        ("read while written: old, then new", true, vec![write(1, 0, 100), read(0, 10, 20), read(1, 30, 40)]),
        ("read while written: new, then old", false, vec![write(1, 0, 100), read(1, 10, 20), read(0, 30, 40)]),
        ("overlapping writes in either order", true, vec![write(1, 0, 50), write(2, 10, 40), read(1, 60, 70)]),
        (
            "two readers, two orders",
            false,
            vec![write(1, 0, 100), write(2, 0, 100), read(1, 110, 120), read(2, 130, 140)],
        ),
        (
            "readers agree within overlapping writes",
            true,
            vec![write(1, 0, 100), write(2, 0, 100), read(1, 10, 30), read(2, 40, 60), read(2, 110, 120)],
        ),
        (
            "readers disagree within overlapping writes",
            false,
            vec![write(1, 0, 100), write(2, 0, 100), read(1, 10, 20), read(2, 30, 40), read(1, 50, 60)],
        ),
        ("unknown and never seen", true, vec![write(1, 0, unknown), read(0, 20, 30), read(0, 40, 50)]),
        ("unknown and seen late", true, vec![write(1, 0, unknown), read(0, 20, 30), read(1, 400, 500)]),
        ("unknown and seen, then gone", false, vec![write(1, 0, unknown), read(1, 20, 30), read(0, 40, 50)]),
        (
            "unknown takes effect after a later write",
            true,
            vec![write(1, 0, unknown), write(2, 20, 30), read(2, 40, 50), read(1, 60, 70)],
        ),
        (
            "unknown takes effect twice",
            false,
            vec![write(1, 0, unknown), read(1, 10, 20), write(2, 30, 40), read(2, 50, 60), read(1, 70, 80)],
        ),
        ("read before the unknown write began", false, vec![read(1, 0, 10), write(1, 20, unknown)]),
        ("read before the write began", false, vec![read(1, 0, 10), write(1, 20, 30)]),
        ("end and begin at one moment overlap", true, vec![write(1, 0, 10), read(0, 10, 20)]),
        ("an end just before a begin does not", false, vec![write(1, 0, 10), read(0, 11, 20)]),
    ];
    for (name, expect, history) in table {
        let found = judge(&history);
        assert_eq!(found.is_ok(), expect, "{name}: {found:?}");
        assert_eq!(every_order(&history), expect, "{name}: the slow judge");
    }
}

#[test]
fn a_violation_names_what_has_no_place() {
    let history = [write(1, 0, 10), write(2, 20, 30), read(1, 40, 50)];
    let Err(Fault::Violation(text)) = judge(&history) else { panic!("accepted") };
    assert!(text.contains("Read(Some(1))"), "{text}");
}

#[test]
fn values_written_twice_are_not_judged() {
    assert_eq!(judge(&[write(1, 0, 10), write(1, 20, 30)]), Err(Fault::NotUnique(1)));
    assert_eq!(judge(&[write(INITIAL, 0, 10)]), Err(Fault::NotUnique(INITIAL)));
}

#[test]
fn the_bound_gives_up_and_says_so() {
    // Writes that all overlap: every order must be tried before the last read is refused.
    let mut history: Vec<Operation> = (1..=16).map(|v| write(v, 0, 100)).collect();
    history.extend([read(1, 200, 210), read(2, 220, 230)]);
    let few = check(&history.iter().collect::<Vec<_>>(), Some(INITIAL), 50);
    assert_eq!(few, Err(Fault::Undecided { visited: 51 }));
}

#[test]
fn keys_are_judged_apart() {
    let other = |mut o: Operation| {
        o.key = "other".into();
        o
    };
    let initial = ["k", "other"].map(|k| (k.to_owned(), INITIAL)).into();
    let fine = [write(1, 0, 10), other(read(0, 20, 30)), read(1, 20, 30)];
    assert_eq!(check_keys(&fine, &initial), Ok(()));
    let bad = [write(1, 0, 10), other(write(2, 0, 10)), read(1, 20, 30), other(read(0, 20, 30))];
    let (key, fault) = check_keys(&bad, &initial).expect_err("accepted");
    assert_eq!(key, "other");
    assert!(matches!(fault, Fault::Violation(_)), "{fault}");
}

/// Eight clients on one key, each always in an operation, one write in ten of unknown outcome.
fn busy_history(operations: u64) -> Vec<Operation> {
    let one = |n: u64| {
        // It takes effect at `at`; a read sees the last write before it.
        let at = 40 + n * 10;
        let (from, to) = (at - 35, at + 35);
        match n % 3 {
            0 => read(n - 1, from, to),
            _ => write(n, from, (n % 10 != 1).then_some(to)),
        }
    };
    (1..=operations).map(one).collect()
}

#[test]
fn a_long_history_is_judged_within_the_bound() {
    assert_eq!(judge(&busy_history(20_000)), Ok(()));
}

#[test]
fn one_stale_read_in_a_busy_history_is_found() {
    let mut history = busy_history(300);
    history.push(read(200, 4_000, 4_010));
    let found = judge(&history);
    assert!(matches!(found, Err(Fault::Violation(_))), "{found:?}");
}

/// Tries every order, and leaves out every set of unknown writes.
fn every_order(history: &[Operation]) -> bool {
    fn place(rest: &[&Operation], held: Option<Value>) -> bool {
        if rest.iter().all(|o| o.returned.is_none()) {
            return true;
        }
        (0..rest.len()).any(|i| {
            let next = rest[i];
            let too_early = rest.iter().any(|o| o.returned.is_some_and(|end| end < next.invoked));
            let after = match next.action {
                Action::Write(value) => Some(value),
                Action::Read(seen) if seen == held => held,
                Action::Read(_) => return false,
            };
            let mut others = rest.to_vec();
            others.remove(i);
            !too_early && place(&others, after)
        })
    }
    place(&history.iter().collect::<Vec<_>>(), Some(INITIAL))
}

/// Up to seven operations; reads see any value that is written, or the initial one.
fn small_history() -> impl Strategy<Value = Vec<Operation>> {
    let one = (any::<bool>(), 0_u64..20, proptest::option::weighted(0.8, 0_u64..12), 0_u64..8);
    proptest::collection::vec(one, 0..8).prop_map(|raw| {
        let count = raw.len() as u64;
        let operations = raw.into_iter().enumerate().map(|(i, (is_write, invoked, lasts, seen))| match is_write {
            true => write(i as u64 + 1, invoked, lasts.map(|l| invoked + l)),
            false => read(seen % (count + 1), invoked, invoked + lasts.unwrap_or(3)),
        });
        operations.collect()
    })
}

/// Histories of a true register: each operation takes effect at a moment within its interval.
fn true_history() -> impl Strategy<Value = Vec<Operation>> {
    // Moment, time before, time after, write or read, outcome known to the client, took effect.
    let one = (0_u64..2_000, 0_u64..80, 0_u64..80, any::<bool>(), any::<bool>(), any::<bool>());
    proptest::collection::vec(one, 0..120).prop_map(|mut raw| {
        raw.sort_by_key(|r| r.0);
        let mut held = INITIAL;
        let mut history = Vec::new();
        for (i, (at, before, after, is_write, known, happened)) in raw.into_iter().enumerate() {
            let at = 100 + at;
            let (value, from, to) = (i as u64 + 1, at - before, at + after);
            if !is_write {
                history.push(read(held, from, to));
                continue;
            }
            if known || happened {
                held = value;
            }
            history.push(write(value, from, known.then_some(to)));
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_slow_judge(history in small_history()) {
        prop_assert_eq!(judge(&history).is_ok(), every_order(&history));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepts_every_history_of_a_true_register(history in true_history()) {
        prop_assert_eq!(judge(&history), Ok(()));
    }
}
