//! What the accounts of a node say to the ledger, and what they make of its answers.

use std::{collections::HashMap, sync::Arc};

use provost_data_policy::quota::{
    Actual, LeaseAnswer, LeaseBook, LeaseExchange, LeaseGrant, LeaseReport, Slot, Wanting,
};

use crate::world::account;

const SECOND: u64 = 1_000_000_000;

fn grant(lease: u64, units: u64, remaining: u64) -> LeaseGrant {
    LeaseGrant {
        account: "acme/q".into(),
        lease,
        units,
        remaining,
        limit: 100,
        window_end_ns: 77,
        ttl_ms: 60_000,
        ..LeaseGrant::default()
    }
}

fn answer(book: &LeaseBook, exchange: &LeaseExchange, grant: LeaseGrant, now: u64) {
    book.answered(exchange.seq, &LeaseAnswer { grants: vec![grant], fenced: false }, now);
}

/// An account that got a lease at the first second.
fn supplied(unit: &str, window: Option<&str>, grant: LeaseGrant) -> (LeaseBook, Arc<Slot>) {
    let (book, slot) = account(unit, window);
    let waiting = slot.wait(1);
    let exchange = book.next(SECOND).unwrap();
    answer(&book, &exchange, grant, SECOND);
    drop(waiting);
    (book, slot)
}

#[test]
fn an_exchange_is_sent_unchanged_until_it_is_answered() {
    let (book, slot) = account("calls", Some("day"));
    assert_eq!(book.next(SECOND), None, "nothing to say");
    assert_eq!(slot.take(1, SECOND).unwrap_err(), Wanting::Ask);
    let _waiting = slot.wait(3).unwrap();
    let first = book.next(SECOND).unwrap();
    assert_eq!((first.seq, first.wants[0].units), (1, 3));
    let _more = slot.wait(5).unwrap();
    assert_eq!(book.next(2 * SECOND), Some(first.clone()), "the same again");
    book.answered(9, &LeaseAnswer::default(), 2 * SECOND);
    assert_eq!(book.next(2 * SECOND), Some(first.clone()), "that was an answer to another");
    answer(&book, &first, grant(1, 10, 90), 2 * SECOND);
    let held: Vec<_> = (0..10).map(|_| slot.take(1, 3 * SECOND).unwrap()).collect();
    assert_eq!(slot.take(1, 3 * SECOND).unwrap_err(), Wanting::Ask);
    held.iter().for_each(|h| h.begin());
    held.iter().take(4).for_each(|h| h.settle(&Actual::default()));
    // Four are settled, five more were begun and are lost: used all the same. One never ran.
    drop(held);
    let second = book.next(4 * SECOND).unwrap();
    assert_eq!(second.seq, 2);
    assert_eq!(second.reports, [LeaseReport { lease: 1, settled: 10, returned: 0, closed: false }]);
}

#[test]
fn a_lease_ends_by_the_clock_that_began_when_it_was_asked_for() {
    let (book, slot) = account("calls", Some("minute"));
    let waiting = slot.wait(1);
    let exchange = book.next(SECOND).unwrap();
    // The answer takes its time, and the window is over a second after the request was sent.
    answer(&book, &exchange, LeaseGrant { ttl_ms: 1_000, ..grant(1, 10, 90) }, 2 * SECOND - 1);
    drop(waiting);
    let held = slot.take(1, 2 * SECOND - 1).unwrap();
    held.begin();
    assert_eq!(slot.take(1, 2 * SECOND).unwrap_err(), Wanting::Ask);
    let waiting = slot.wait(1);
    let next = book.next(2 * SECOND).unwrap();
    assert_eq!(next.reports, [LeaseReport { lease: 1, settled: 0, returned: 9, closed: true }]);
    answer(&book, &next, grant(2, 5, 95), 2 * SECOND);
    drop(waiting);
    // What was taken from the old lease never comes back to the new one.
    drop(held);
    assert_eq!((0..9).filter(|_| slot.take(1, 3 * SECOND).map(std::mem::forget).is_ok()).count(), 5);
}

#[test]
fn what_is_known_to_be_used_up_is_not_asked_for_with_every_call() {
    let (book, slot) = account("calls", Some("day"));
    let waiting = slot.wait(1);
    let exchange = book.next(SECOND).unwrap();
    answer(&book, &exchange, grant(0, 0, 0), SECOND);
    drop(waiting);
    assert!(matches!(slot.take(1, SECOND).unwrap_err(), Wanting::Exhausted { .. }));
    assert_eq!(slot.take(1, 2 * SECOND).unwrap_err(), Wanting::Ask, "somebody may have given some back");
    assert_eq!((slot.facts().limit, slot.facts().remaining), (100, 0));
}

#[test]
fn a_balance_asks_ahead_when_it_runs_low_and_not_for_the_last_of_a_window() {
    let (book, slot) = supplied("calls", Some("day"), grant(1, 10, 90));
    let take = |n: usize| (0..n).for_each(|_| slot.take(1, SECOND).unwrap().settle(&Actual::default()));
    take(5);
    assert_eq!(book.next(SECOND), None);
    take(1);
    let ahead = book.next(SECOND).unwrap();
    assert_eq!((ahead.wants[0].units, ahead.reports[0].settled), (0, 6));
    answer(&book, &ahead, grant(1, 6, 2), SECOND);
    take(9);
    assert_eq!(book.next(SECOND), None, "the last is granted only to calls that wait");
}

#[test]
fn an_idle_account_gives_back_what_it_has() {
    let (book, slot) = supplied("calls", Some("day"), grant(1, 10, 90));
    slot.take(1, SECOND).unwrap().settle(&Actual::default());
    let used = book.next(4 * SECOND).unwrap();
    assert_eq!(used.reports, [LeaseReport { lease: 1, settled: 1, returned: 0, closed: false }]);
    book.answered(used.seq, &LeaseAnswer::default(), 4 * SECOND);
    let mut given = None;
    for second in 5..20 {
        given = given.or(book.next(second * SECOND));
    }
    assert_eq!(given.unwrap().reports, [LeaseReport { lease: 1, settled: 0, returned: 9, closed: true }]);
}

#[test]
fn a_share_that_shrinks_is_returned_after_a_second_and_not_before() {
    let rate = |units: u64| LeaseGrant { rate_milli: units * 900, burst: 1, ttl_ms: 10_000, ..grant(1, units, 0) };
    let (book, slot) = supplied("calls", Some("second"), rate(50));
    slot.take(1, SECOND).unwrap().begin();
    let renewal = book.next(5 * SECOND).unwrap();
    assert!(renewal.reports.is_empty() && renewal.wants[0].units >= 1);
    answer(&book, &renewal, rate(20), 5 * SECOND);
    slot.take(1, 5 * SECOND).unwrap_err();
    assert!(book.next(5 * SECOND + SECOND / 2).is_none_or(|e| e.reports.is_empty()));
    let back = book.next(7 * SECOND).unwrap();
    assert_eq!(back.reports, [LeaseReport { lease: 1, settled: 0, returned: 30, closed: false }]);
    // Not renewed in time, the share ends.
    slot.take(1, 14 * SECOND).unwrap().begin();
    assert_eq!(slot.take(1, 15 * SECOND).unwrap_err(), Wanting::Ask);
}

#[test]
fn the_end_gives_back_what_nobody_can_take_any_more() {
    let (book, slot) = supplied("tokens", Some("day"), grant(1, 50, 50));
    let running = slot.take(20, SECOND).unwrap();
    running.begin();
    slot.take(10, SECOND).unwrap().settle(&Actual { tokens: 4, cost_micro: 0 });
    book.close();
    let last = book.next(SECOND).unwrap();
    assert_eq!(last.reports, [LeaseReport { lease: 1, settled: 4, returned: 26, closed: true }]);
    slot.take(1, SECOND).unwrap_err();
    running.settle(&Actual { tokens: 1, cost_micro: 0 });
    book.answered(last.seq, &LeaseAnswer::default(), SECOND);
    assert_eq!(book.next(9 * SECOND), None);
}

#[test]
fn a_fenced_node_stops_at_once() {
    let (book, slot) = supplied("calls", Some("day"), grant(1, 50, 50));
    slot.take(1, SECOND).unwrap().settle(&Actual::default());
    let report = book.next(4 * SECOND).unwrap();
    book.answered(report.seq, &LeaseAnswer { grants: Vec::new(), fenced: true }, 4 * SECOND);
    assert!(book.is_fenced());
    slot.take(1, 4 * SECOND).unwrap_err();
    let _waiting = slot.wait(1);
    assert_eq!(book.next(5 * SECOND), None);
}

#[test]
fn shares_are_renewed_at_a_third_of_the_life_that_the_ledger_gives_them() {
    for (unit, window) in [("calls", Some("second")), ("concurrent", None)] {
        for ttl_s in [3, 6, 12] {
            let lease = LeaseGrant { rate_milli: 40_000, burst: 10, ttl_ms: ttl_s * 1_000, ..grant(1, 50, 50) };
            let (book, slot) = supplied(unit, window, lease);
            let _running = slot.take(1, SECOND).unwrap();
            let first = (11..200).find(|tenth| book.next(tenth * SECOND / 10).is_some()).unwrap();
            let after = first * SECOND / 10 - SECOND;
            let due = ttl_s * SECOND / 3;
            assert!((due..=due + SECOND / 2).contains(&after), "{unit} with {ttl_s} s: after {after} ns");
        }
    }
}

#[test]
fn a_limit_that_is_lowered_holds_at_once() {
    let (book, slot) = supplied("calls", Some("day"), grant(1, 40, 60));
    (0..5).for_each(|_| slot.take(1, SECOND).unwrap().settle(&Actual::default()));
    let running = slot.take(1, SECOND).unwrap();
    book.recall(&HashMap::from([("acme/other", 1)]), SECOND);
    assert_eq!(slot.facts().limit, 100, "another quota's");
    book.recall(&HashMap::from([("acme/q", 10)]), 2 * SECOND);
    assert_eq!(slot.take(1, 2 * SECOND).unwrap_err(), Wanting::Ask, "what is left was leased under the old limit");
    assert_eq!(slot.facts().limit, 10);
    let exchange = book.next(2 * SECOND + 1).unwrap();
    assert_eq!(exchange.reports, [LeaseReport { lease: 1, settled: 5, returned: 34, closed: false }]);
    answer(&book, &exchange, LeaseGrant { limit: 10, ..grant(1, 0, 0) }, 2 * SECOND + 2);
    // What was in use then is not taken again either.
    drop(running);
    assert!(slot.take(1, 3 * SECOND).is_err());
    let exchange = book.next(3 * SECOND).unwrap();
    assert_eq!(exchange.reports, [LeaseReport { lease: 1, settled: 0, returned: 1, closed: false }]);
}

#[test]
fn what_was_asked_for_under_another_limit_goes_back_unused() {
    let (book, slot) = account("calls", Some("day"));
    let waiting = slot.wait(1);
    let exchange = book.next(SECOND).unwrap();
    book.recall(&HashMap::from([("acme/q", 1)]), SECOND + 5);
    answer(&book, &exchange, grant(1, 16, 84), SECOND + 9);
    assert_eq!(slot.take(1, SECOND + 9).unwrap_err(), Wanting::Ask);
    let again = book.next(SECOND + 10).unwrap();
    assert_eq!(again.reports, [LeaseReport { lease: 1, settled: 0, returned: 16, closed: false }]);
    answer(&book, &again, LeaseGrant { limit: 1, ..grant(1, 1, 0) }, SECOND + 11);
    assert!(slot.take(1, SECOND + 12).is_ok());
    drop(waiting);
}

#[test]
fn a_limit_that_fell_before_the_node_runs_the_change_takes_back_what_was_leased() {
    let (book, slot) = supplied("calls", Some("day"), grant(1, 10, 90));
    (0..6).for_each(|_| slot.take(1, SECOND).unwrap().settle(&Actual::default()));
    let ahead = book.next(SECOND).unwrap();
    answer(&book, &ahead, LeaseGrant { limit: 12, ..grant(1, 2, 0) }, SECOND);
    assert_eq!((0..9).filter(|_| slot.take(1, SECOND).map(std::mem::forget).is_ok()).count(), 2);
    let next = book.next(SECOND + 1).unwrap();
    assert_eq!(next.reports[0].returned, 4);
}

#[test]
fn a_limit_that_is_raised_is_asked_for_at_once() {
    for (unit, window) in [("calls", Some("day")), ("calls", Some("second")), ("concurrent", None)] {
        let (book, slot) = account(unit, window);
        let waiting = slot.wait(1);
        let exchange = book.next(SECOND).unwrap();
        answer(&book, &exchange, LeaseGrant { limit: 1, ..grant(0, 0, 0) }, SECOND);
        drop(waiting);
        assert!(matches!(slot.take(1, SECOND + 1).unwrap_err(), Wanting::Exhausted { .. }), "{unit}");
        book.recall(&HashMap::from([("acme/q", 100)]), SECOND + 2);
        assert_eq!(slot.take(1, SECOND + 2).unwrap_err(), Wanting::Ask, "{unit}");
    }
}

#[test]
fn a_call_larger_than_the_share_asks_for_a_larger_one_up_to_the_limit() {
    let rate = |units: u64| LeaseGrant { rate_milli: units * 500, burst: units / 2, ..grant(1, units, 0) };
    let (book, slot) = supplied("tokens", Some("second"), rate(20));
    assert_eq!(slot.take(101, 2 * SECOND).unwrap_err(), Wanting::TooLarge);
    assert_eq!(slot.take(60, 2 * SECOND).unwrap_err(), Wanting::Ask);
    let waiting = slot.wait(60);
    let exchange = book.next(2 * SECOND).unwrap();
    assert!(exchange.wants[0].units >= 60, "{exchange:?}");
    assert!(matches!(slot.take(60, 2 * SECOND).unwrap_err(), Wanting::Early { .. }), "it was asked for just now");
    answer(&book, &exchange, rate(80), 2 * SECOND);
    drop(waiting);
    assert!(slot.is_large(60) && matches!(slot.take(60, 2 * SECOND).unwrap_err(), Wanting::Early { .. }));
    assert!(slot.take(60, 3 * SECOND).is_ok());
}
