//! Priorities, turns, residency, the queue and the accounts by example.

use provost_gpu_vram::{Limits, Priority, Recovery, Rejection, Request};

use crate::driver::Driver;
use crate::{SECOND, key, request};

fn limits() -> Limits {
    Limits { headroom_bytes: 0, early_eviction: false, ..Limits::new(100) }
}

/// Ten minutes in which each request wants other weights than those before it, and only one set
/// fits. Gives the loads, of a second each.
fn loads_of_ten_minutes(limits: Limits) -> u64 {
    let mut driver = Driver::new(limits);
    let (mut loads, mut next) = (0, [1, 2, 3].into_iter().cycle());
    for _ in 0..600 {
        if driver.waiting.is_empty() {
            driver.submit(request(next.next().unwrap(), 80, Priority::Normal)).unwrap();
        }
        let loads_now = driver.loading.is_some();
        driver.pass(SECOND);
        if loads_now {
            loads += 1;
            driver.loaded(SECOND);
        }
        while !driver.running.is_empty() {
            driver.finish(0);
        }
    }
    loads
}

#[test]
fn residency_binds_the_more_the_busier_the_bus() {
    // A load, and four times as long to stay.
    let strict = loads_of_ten_minutes(limits());
    assert!((110..=125).contains(&strict), "{strict} loads");
    // Swapping at once would be 600. A bus that is kept free for some of the time is in between.
    let early = loads_of_ten_minutes(Limits { early_eviction: true, ..limits() });
    assert!((150..=450).contains(&early), "{early} loads");
}

#[test]
fn what_is_not_likely_to_be_missed_goes_before_its_time() {
    let mut driver = Driver::new(Limits { early_eviction: true, ..limits() });
    driver.settle(request(1, 80, Priority::Normal));
    driver.pass(600 * SECOND);
    driver.settle(request(2, 80, Priority::Normal));
    driver.pass(600 * SECOND);
    for n in [1, 2] {
        driver.submit(request(n, 80, Priority::Normal)).unwrap();
        assert_eq!(driver.loading, Some((key(n), 80)), "asked for once in ten minutes, and the bus is calm");
        driver.pass(SECOND);
        driver.loaded(SECOND);
        driver.finish(0);
    }
    // Of a model that was never asked for before nobody knows.
    driver.submit(request(3, 80, Priority::Normal)).unwrap();
    driver.pass(SECOND);
    driver.loaded(SECOND);
    driver.finish(0);
    driver.submit(request(2, 80, Priority::Normal)).unwrap();
    assert_eq!(driver.loading, None);
}

#[test]
fn weights_are_worth_what_all_who_ask_for_them_make_them() {
    let mut driver = Driver::new(limits());
    for priority in [Priority::Critical, Priority::Critical, Priority::Background] {
        driver.settle(request(1, 40, priority));
    }
    for _ in 0..3 {
        driver.settle(request(2, 40, Priority::Normal));
    }
    driver.submit(request(3, 40, Priority::Normal)).unwrap();
    assert_eq!(driver.evicted, [key(2)], "that somebody of no hurry asked for the first ones last changes nothing");
    // Nobody pays for what others asked long ago.
    driver.loaded(SECOND);
    driver.finish(0);
    driver.pass(24 * 3_600 * SECOND);
    for _ in 0..3 {
        driver.settle(request(1, 40, Priority::Background));
        driver.settle(request(3, 40, Priority::Normal));
    }
    driver.submit(request(2, 40, Priority::Normal)).unwrap();
    assert_eq!(driver.evicted, [key(2), key(1)]);
}

#[test]
fn a_load_serves_somebody_even_where_nothing_has_to_stay() {
    let mut driver = Driver::new(Limits { residency_loads: 0, memory_patience_micros: 0, ..limits() });
    for n in [1, 2, 3, 1, 2, 3] {
        driver.submit(request(n, 80, Priority::Normal)).unwrap();
    }
    let mut loads = 0;
    while !driver.waiting.is_empty() || !driver.running.is_empty() {
        loads += u32::from(driver.loading.is_some());
        assert!(loads <= 6, "each load serves at least one");
        driver.loaded(SECOND);
        if !driver.running.is_empty() {
            driver.finish(0);
        }
        driver.pass(1);
    }
    assert!(driver.refused.is_empty());
}

#[test]
fn two_who_need_each_others_memory_do_not_wait_for_ever() {
    let mut driver = Driver::new(limits());
    for n in [1, 2] {
        driver.submit(request(n, 40, Priority::Normal)).unwrap();
        driver.loaded(SECOND);
        driver.finish(0);
    }
    let large = |n| Request { budget_bytes: 50, ..request(n, 40, Priority::Normal) };
    let first = driver.submit(large(1)).unwrap();
    let second = driver.submit(large(2)).unwrap();
    assert!(driver.running.is_empty());
    // The weights of the other may go when their residency is over.
    driver.pass(4 * SECOND);
    assert!(driver.is_running(first) && driver.evicted == [key(2)]);
    driver.finish(0);
    driver.pass(4 * SECOND);
    driver.loaded(SECOND);
    assert!(driver.is_running(second) && driver.evicted == [key(2), key(1)]);
}

#[test]
fn the_bus_does_not_stay_idle_while_the_first_waits_for_room() {
    let mut driver = Driver::new(limits());
    let running = driver.submit(request(1, 70, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    let first = driver.submit(request(2, 80, Priority::Normal)).unwrap();
    driver.submit(request(3, 20, Priority::Normal)).unwrap();
    assert_eq!(driver.loading, Some((key(3), 20)), "there is room for the second");
    driver.loaded(SECOND);
    driver.finish(1);
    driver.pass(15 * SECOND);
    // When its patience ends, nobody passes it and models in use stop.
    let late = driver.submit(request(1, 70, Priority::Normal)).unwrap();
    let other = driver.submit(request(4, 10, Priority::Normal)).unwrap();
    assert!(driver.is_running(running) && !driver.is_running(late) && driver.loading.is_none());
    driver.finish(0);
    assert_eq!(driver.loading, Some((key(2), 80)));
    driver.loaded(SECOND);
    assert!(driver.is_running(first) && driver.waiting.contains_key(&other));
}

#[test]
fn a_critical_request_displaces_an_idle_model_at_once() {
    let mut driver = Driver::new(limits());
    let ticket = driver.submit(request(1, 80, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    assert!(driver.is_running(ticket));
    driver.finish(0);
    // Resident for no time at all: a normal request waits for the end of its residency …
    driver.submit(request(2, 80, Priority::Normal)).unwrap();
    assert_eq!(driver.loading, None);
    assert_eq!(driver.arbiter.next_wake(), Some(4 * SECOND));
    // … a critical one does not, and goes before it.
    driver.submit(request(3, 80, Priority::Critical)).unwrap();
    assert_eq!(driver.evicted, [key(1)]);
    assert_eq!(driver.loading, Some((key(3), 80)));
}

#[test]
fn a_critical_request_never_displaces_what_is_leased_but_lets_it_drain() {
    let mut driver = Driver::new(limits());
    let first = driver.submit(request(1, 80, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    driver.submit(request(3, 80, Priority::Critical)).unwrap();
    assert!(driver.evicted.is_empty());
    // The model that yields takes no new requests.
    let late = driver.submit(request(1, 80, Priority::Normal)).unwrap();
    assert!(driver.is_running(first) && !driver.is_running(late));
    driver.finish(0);
    assert_eq!(driver.evicted, [key(1)]);
    assert_eq!(driver.loading, Some((key(3), 80)));
}

#[test]
fn critical_models_are_not_displaced_by_each_other_before_their_time() {
    let mut driver = Driver::new(limits());
    driver.submit(request(1, 80, Priority::Critical)).unwrap();
    driver.loaded(SECOND);
    driver.finish(0);
    driver.submit(request(2, 80, Priority::Critical)).unwrap();
    assert_eq!(driver.loading, None);
    driver.pass(4 * SECOND);
    assert_eq!(driver.loading, Some((key(2), 80)));
}

#[test]
fn what_is_asked_for_often_stays() {
    let mut driver = Driver::new(limits());
    driver.settle(request(1, 45, Priority::Normal));
    for _ in 0..5 {
        driver.submit(request(1, 45, Priority::Normal)).unwrap();
        driver.finish(0);
    }
    driver.settle(request(2, 45, Priority::Normal));
    driver.settle(request(3, 45, Priority::Normal));
    assert_eq!(driver.evicted, [key(2)], "2 was used later, 1 more often");
    // Long unused, it counts for less than what is new.
    driver.pass(3_600 * SECOND);
    driver.settle(request(3, 45, Priority::Normal));
    driver.settle(request(4, 45, Priority::Normal));
    assert_eq!(driver.evicted, [key(2), key(1)]);
}

#[test]
fn a_model_keeps_the_device_for_its_residency_while_others_wait() {
    let mut driver = Driver::new(Limits { active_bound: 1, ..limits() });
    for _ in 0..8 {
        driver.submit(request(1, 80, Priority::Normal)).unwrap();
    }
    driver.loaded(SECOND);
    let other = driver.submit(request(2, 80, Priority::Normal)).unwrap();
    let mut served = 0;
    while driver.loading.is_none() {
        driver.pass(SECOND);
        driver.finish(0);
        served += 1;
    }
    assert_eq!(served, 4);
    driver.loaded(SECOND);
    assert!(driver.is_running(other));
}

#[test]
fn the_queue_is_bounded_and_says_when_to_come_again() {
    let mut driver = Driver::new(Limits { queue_bound: 2, active_bound: 1, ..limits() });
    for n in 1..3 {
        driver.submit(request(n, 80, Priority::Normal)).unwrap();
    }
    let refused = driver.submit(request(1, 80, Priority::Normal)).unwrap_err();
    assert_eq!(refused, Rejection::QueueFull { waiting: 2, retry_after_micros: 2 * SECOND });
    let large = driver.submit(Request { budget_bytes: 21, ..request(1, 80, Priority::Normal) }).unwrap_err();
    assert_eq!(large, Rejection::TooLarge { needed: 101, capacity: 100 });
}

#[test]
fn a_request_whose_patience_ends_is_refused() {
    let mut driver = Driver::new(limits());
    driver.submit(request(1, 80, Priority::Normal)).unwrap();
    let ticket = driver.submit(Request { patience_micros: 5 * SECOND, ..request(2, 80, Priority::Normal) }).unwrap();
    driver.pass(4 * SECOND);
    assert!(driver.refused.is_empty());
    driver.pass(SECOND);
    assert_eq!(driver.refused, [(ticket, Rejection::Overdue { retry_after_micros: SECOND })]);
}

#[test]
fn weights_that_cannot_be_loaded_refuse_those_who_wait_for_them() {
    let mut driver = Driver::new(limits());
    let first = driver.submit(request(1, 80, Priority::Normal)).unwrap();
    let second = driver.submit(request(2, 80, Priority::Normal)).unwrap();
    driver.loading = None;
    driver.arbiter.load_failed(driver.now, key(1));
    driver.poll();
    assert_eq!(driver.refused, [(first, Rejection::LoadFailed)]);
    assert!(driver.waiting.contains_key(&second));
    assert_eq!(driver.loading, Some((key(2), 80)));
}

#[test]
fn an_allocation_that_fails_evicts_once_and_is_then_refused() {
    let mut driver = Driver::new(limits());
    driver.settle(request(1, 40, Priority::Normal));
    driver.submit(request(2, 40, Priority::Normal)).unwrap();
    let recovery = driver.arbiter.out_of_memory(driver.now, key(2));
    assert_eq!(recovery, Recovery::Retry { evict: vec![key(1)] });
    driver.present.remove(&key(1));
    assert_eq!(driver.arbiter.out_of_memory(driver.now, key(2)), Recovery::Refuse);
    driver.loaded(SECOND);
    // It worked in the end: the next failure is a first one. But nothing is idle any more.
    assert_eq!(driver.arbiter.out_of_memory(driver.now, key(2)), Recovery::Refuse);
}

#[test]
fn an_allocation_that_went_well_in_the_end_leaves_a_first_failure_to_the_next() {
    let mut driver = Driver::new(limits());
    driver.settle(request(1, 30, Priority::Normal));
    driver.settle(request(2, 30, Priority::Normal));
    driver.submit(request(3, 30, Priority::Normal)).unwrap();
    let is_retried = |recovery: &Recovery| matches!(recovery, Recovery::Retry { .. });
    assert!(is_retried(&driver.arbiter.out_of_memory(driver.now, key(3))));
    driver.arbiter.recovered(key(3));
    assert!(is_retried(&driver.arbiter.out_of_memory(driver.now, key(3))));
}

#[test]
fn what_something_else_took_is_not_given_away() {
    let mut driver = Driver::new(Limits { headroom_bytes: 10, ..limits() });
    driver.settle(request(1, 40, Priority::Normal));
    let drift = driver.arbiter.measure(driver.now, 60);
    assert_eq!((drift.booked_free_bytes, drift.missing_bytes, drift.alarm), (60, 0, false));
    // The device has ten, and ten is the headroom: nothing is given away but by evicting.
    let drift = driver.arbiter.measure(driver.now, 10);
    assert_eq!((drift.missing_bytes, drift.alarm), (50, true));
    driver.submit(request(2, 40, Priority::Normal)).unwrap();
    assert_eq!(driver.evicted, [key(1)], "there is room for one of them only");
    driver.loaded(SECOND);
    driver.finish(0);
    // A little of the headroom may be gone, but not half of it.
    driver.arbiter.measure(driver.now, 5);
    driver.poll();
    assert_eq!(driver.evicted, [key(1)]);
    driver.arbiter.measure(driver.now, 4);
    driver.poll();
    assert_eq!(driver.evicted, [key(1), key(2)]);
    let drift = driver.arbiter.measure(driver.now, 100);
    assert_eq!((drift.missing_bytes, drift.alarm), (0, false));
}

#[test]
fn unloading_waits_for_the_last_user() {
    let mut driver = Driver::new(limits());
    driver.submit(request(1, 80, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    driver.arbiter.unload(driver.now, key(1));
    driver.poll();
    assert!(driver.evicted.is_empty());
    driver.finish(0);
    assert_eq!(driver.evicted, [key(1)]);
    driver.submit(request(1, 80, Priority::Normal)).unwrap();
    assert_eq!(driver.loading, Some((key(1), 80)));
}
