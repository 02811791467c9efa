//! Adapters over shared weights, by example.

use provost_gpu_vram::{Action, Arbiter, Limits, Priority};

use crate::driver::{Driver, Truth};
use crate::{SECOND, key, request};

const NEEDS: Truth = Truth { budget: 5, cache: 0, finds_full: false };

fn driver() -> Driver {
    Driver::new(Limits { headroom_bytes: 0, early_eviction: false, ..Limits::new(100) })
}

#[test]
fn requests_share_weights_and_adapters() {
    let mut driver = driver();
    let base = request(1, 40, Priority::Normal);
    let adapters = [(key(101), 7), (key(102), 9)];
    driver.submit_tuned(base, 0, NEEDS, adapters[0]).unwrap();
    driver.loaded(SECOND);
    driver.submit_tuned(base, 0, NEEDS, adapters[0]).unwrap();
    driver.submit_tuned(base, 0, NEEDS, adapters[1]).unwrap();
    driver.submit(base).unwrap();
    assert_eq!(driver.running.len(), 4);
    let usage = driver.arbiter.usage();
    assert_eq!((usage.weights, usage.reserved), (40, 3 * 5 + 7 + 9), "one copy of each");
    while !driver.running.is_empty() {
        driver.finish(0);
    }
    assert_eq!(driver.arbiter.usage().reserved, 7 + 9, "they stay for those who come later");
}

#[test]
fn an_adapter_that_nobody_uses_goes_before_weights_do() {
    let mut driver = driver();
    let base = request(1, 40, Priority::Normal);
    let used = driver.submit_tuned(base, 0, NEEDS, (key(101), 10)).unwrap();
    driver.loaded(SECOND);
    driver.submit_tuned(base, 0, NEEDS, (key(102), 10)).unwrap();
    driver.finish(1);
    assert!(driver.is_running(used));
    // 35 bytes are free, and 10 are of an adapter that nobody uses.
    driver.submit(request(2, 40, Priority::Normal)).unwrap();
    assert_eq!(driver.adapters.keys().copied().collect::<Vec<_>>(), [(key(1), key(101))]);
    assert!(driver.evicted.is_empty());
    driver.loaded(SECOND);
    assert_eq!(driver.running.len(), 2);
}

#[test]
fn adapters_go_with_the_weights_that_they_are_used_over() {
    let mut driver = driver();
    let base = request(1, 40, Priority::Normal);
    driver.submit_tuned(base, 0, NEEDS, (key(101), 10)).unwrap();
    driver.loaded(SECOND);
    driver.arbiter.unload(driver.now, key(1));
    driver.poll();
    assert_eq!(driver.adapters.len(), 1, "they are in use");
    driver.finish(0);
    assert!(driver.adapters.is_empty() && driver.present.is_empty());
}

#[test]
fn who_waits_again_uses_nothing_meanwhile() {
    let mut driver = driver();
    let base = request(1, 40, Priority::Normal);
    let first = driver.submit_tuned(base, 0, NEEDS, (key(101), 10)).unwrap();
    driver.loaded(SECOND);
    let large = Truth { budget: 50, cache: 0, finds_full: false };
    let second = driver.submit_tuned(base, 0, large, (key(101), 10)).unwrap();
    assert!(driver.is_running(first) && driver.waiting.contains_key(&second));
    driver.finish(0);
    assert!(driver.is_running(second) && driver.adapters.len() == 1);
    driver.finish(0);
    // Nobody has it: it makes room for one that needs all there is beside the weights.
    let all = Truth { budget: 60, cache: 0, finds_full: false };
    driver.submit_as(base, 0, Some(all)).unwrap();
    assert!(driver.running.len() == 1 && driver.adapters.is_empty());
}

#[test]
fn nobody_is_given_what_an_adapter_takes_that_was_read_and_is_not_used_yet() {
    let mut arbiter = Arbiter::new(Limits { headroom_bytes: 0, ..Limits::new(100) });
    arbiter.set_aside(0, 30);
    assert_eq!((arbiter.usage().reserved, arbiter.free()), (30, 70));
    arbiter.submit(0, request(1, 80, Priority::Normal)).unwrap();
    assert!(arbiter.poll(0).is_empty(), "70 bytes are left");
    arbiter.set_aside(0, 20);
    assert!(matches!(arbiter.poll(0).as_slice(), [Action::Load { .. }]));
    assert!(!arbiter.has_adapter(key(1), key(101)));
}

#[test]
fn who_has_no_room_beside_what_is_set_aside_holds_nobody_back() {
    let mut arbiter = Arbiter::new(Limits { headroom_bytes: 0, ..Limits::new(100) });
    arbiter.set_aside(0, 30);
    arbiter.submit(0, request(1, 80, Priority::Normal)).unwrap();
    let late = 20 * SECOND;
    assert!(arbiter.poll(late).is_empty(), "it has lost its patience, and there is no room for it");
    arbiter.submit(late, request(2, 30, Priority::Normal)).unwrap();
    let actions = arbiter.poll(late);
    let [Action::Load { weights }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(weights.key, key(2));
}

#[test]
fn what_is_idle_goes_for_an_adapter_that_is_read() {
    let mut driver = driver();
    let base = request(1, 40, Priority::Normal);
    driver.submit_tuned(base, 0, NEEDS, (key(101), 10)).unwrap();
    driver.loaded(SECOND);
    driver.finish(0);
    assert_eq!(driver.arbiter.free(), 50);
    driver.arbiter.set_aside(driver.now, 55);
    let actions = driver.arbiter.poll(driver.now);
    assert!(matches!(actions.as_slice(), [Action::DropAdapter { .. }]), "{actions:?}");
    assert_eq!(driver.arbiter.usage().weights, 40, "what is idle beside the weights is enough");
}
