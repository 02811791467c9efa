//! The whole device for one user.

use provost_gpu_vram::{ExclusiveRequest, Limits, Priority, Rejection, Request};

use crate::driver::{Driver, Exclusive};
use crate::{SECOND, key, request};

const ASK: ExclusiveRequest =
    ExclusiveRequest { drain_micros: 10 * SECOND, heartbeat_micros: 5 * SECOND, most_micros: 60 * SECOND };

fn with_two_models() -> Driver {
    let mut driver = Driver::new(Limits { headroom_bytes: 0, ..Limits::new(100) });
    driver.settle(request(1, 40, Priority::Normal));
    driver.settle(request(2, 40, Priority::Normal));
    driver.settle(request(2, 40, Priority::Normal));
    driver
}

#[test]
fn it_drains_is_granted_and_restores_what_was_resident() {
    let mut driver = with_two_models();
    driver.submit(request(1, 40, Priority::Normal)).unwrap();
    let token = driver.arbiter.exclusive(driver.now, ASK).unwrap();
    driver.poll();
    assert_eq!(driver.holder, None, "somebody runs");
    let refused = driver.submit(request(2, 40, Priority::Critical)).unwrap_err();
    assert_eq!(refused, Rejection::Exclusive { retry_after_micros: 70 * SECOND });
    assert_eq!(driver.arbiter.exclusive(driver.now, ASK), Err(refused));
    driver.finish(0);
    assert_eq!(driver.exclusive, [Exclusive::Granted]);
    for _ in 0..3 {
        driver.pass(4 * SECOND);
        assert!(driver.arbiter.heartbeat(driver.now, token));
    }
    driver.holder = None;
    assert!(driver.arbiter.end_exclusive(driver.now, token));
    driver.poll();
    driver.loaded(SECOND);
    driver.loaded(SECOND);
    assert_eq!(driver.present.len(), 2);
    assert_eq!(driver.exclusive, [Exclusive::Granted]);
}

#[test]
fn the_most_valuable_comes_back_first_and_those_who_wait_before_it() {
    let mut driver = with_two_models();
    let token = driver.arbiter.exclusive(driver.now, ASK).unwrap();
    driver.poll();
    driver.holder = None;
    driver.arbiter.end_exclusive(driver.now, token);
    driver.submit(request(3, 20, Priority::Background)).unwrap();
    assert_eq!(driver.loading, Some((key(3), 20)));
    driver.loaded(SECOND);
    assert_eq!(driver.loading, Some((key(2), 40)), "asked for twice");
    driver.loaded(SECOND);
    assert_eq!(driver.loading, Some((key(1), 40)));
}

#[test]
fn what_comes_back_takes_no_memory_for_which_somebody_waits() {
    let mut driver = Driver::new(Limits { headroom_bytes: 0, early_eviction: false, ..Limits::new(100) });
    driver.settle(request(1, 10, Priority::Normal));
    driver.settle(request(2, 10, Priority::Normal));
    let token = driver.arbiter.exclusive(driver.now, ASK).unwrap();
    driver.poll();
    driver.holder = None;
    driver.arbiter.end_exclusive(driver.now, token);
    let with_budget = |budget_bytes| Request { budget_bytes, ..request(3, 20, Priority::Normal) };
    driver.submit(with_budget(40)).unwrap();
    let large = driver.submit(with_budget(65)).unwrap();
    driver.loaded(SECOND);
    assert_eq!((driver.running.len(), driver.loading), (1, None));
    driver.finish(0);
    assert!(driver.is_running(large), "nothing has taken what came free");
    driver.loaded(SECOND);
    assert_eq!(driver.present.len(), 2, "one of them finds room beside it");
}

#[test]
fn who_waits_is_refused_with_the_time() {
    let mut driver = Driver::new(Limits { headroom_bytes: 0, ..Limits::new(100) });
    let ticket = driver.submit(request(1, 40, Priority::Normal)).unwrap();
    driver.arbiter.exclusive(driver.now, ASK).unwrap();
    driver.poll();
    assert_eq!(driver.refused, [(ticket, Rejection::Exclusive { retry_after_micros: 70 * SECOND })]);
    // What was being loaded comes to its end first.
    assert_eq!(driver.holder, None);
    driver.loaded(SECOND);
    assert!(driver.holder.is_some());
}

#[test]
fn a_drain_that_takes_too_long_is_given_up() {
    let mut driver = with_two_models();
    let running = driver.submit(request(1, 40, Priority::Normal)).unwrap();
    let token = driver.arbiter.exclusive(driver.now, ASK).unwrap();
    driver.pass(10 * SECOND);
    assert_eq!(driver.exclusive, [Exclusive::Refused]);
    assert!(driver.is_running(running) && driver.evicted.is_empty());
    assert!(!driver.arbiter.heartbeat(driver.now, token));
    driver.submit(request(2, 40, Priority::Normal)).unwrap();
    assert_eq!(driver.running.len(), 2, "requests go on");
}

#[test]
fn a_silent_holder_loses_it_and_so_does_one_that_takes_too_long() {
    let mut driver = with_two_models();
    let token = driver.arbiter.exclusive(driver.now, ASK).unwrap();
    driver.poll();
    driver.pass(5 * SECOND);
    assert_eq!(driver.exclusive, [Exclusive::Granted, Exclusive::Lapsed]);
    assert!(!driver.arbiter.heartbeat(driver.now, token));
    assert!(!driver.arbiter.end_exclusive(driver.now, token));

    let mut driver = with_two_models();
    let token = driver.arbiter.exclusive(driver.now, ASK).unwrap();
    driver.poll();
    for _ in 0..14 {
        driver.pass(4 * SECOND);
        assert!(driver.arbiter.heartbeat(driver.now, token));
    }
    driver.pass(4 * SECOND);
    assert_eq!(driver.exclusive, [Exclusive::Granted, Exclusive::Lapsed]);
}
