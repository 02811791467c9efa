//! Caches, what requests turn out to need, and places that equals exchange, by example.

use provost_gpu_vram::{Lane, Limits, Priority, Rejection, Request};

use crate::driver::{Driver, Truth};
use crate::{SECOND, key, request};

fn limits() -> Limits {
    Limits { headroom_bytes: 0, early_eviction: false, cache_bytes: 20, ..Limits::new(100) }
}

/// A request that needs `cache` bytes of its model's cache.
fn cached(n: u8, bytes: u64, cache: u64) -> Request {
    Request { cache_bytes: cache, ..request(n, bytes, Priority::Normal) }
}

#[test]
fn a_cache_stays_between_requests_and_goes_before_weights() {
    let mut driver = Driver::new(limits());
    driver.settle(cached(1, 40, 3));
    assert_eq!(driver.caches[&key(1)], 18, "a multiple of what was needed, at most what is allowed");
    driver.submit(cached(1, 40, 10)).unwrap();
    assert_eq!(driver.caches[&key(1)], 18, "it is large enough");
    driver.finish(0);
    // 42 bytes are free: with the cache gone there is room, and no weights have to go.
    driver.submit(request(2, 50, Priority::Normal)).unwrap();
    assert!(driver.caches.is_empty() && driver.evicted.is_empty());
    driver.loaded(SECOND);
    driver.submit(cached(1, 40, 10)).unwrap();
    assert_eq!(driver.caches[&key(1)], 10, "half of what is free would be less than it needs");
}

#[test]
fn a_cache_in_use_is_made_larger_when_its_users_have_ended() {
    let mut driver = Driver::new(limits());
    driver.submit(cached(1, 40, 12)).unwrap();
    driver.loaded(SECOND);
    let large = driver.submit(cached(1, 40, 30)).unwrap();
    let small = driver.submit(cached(1, 40, 12)).unwrap();
    assert!(!driver.is_running(large) && driver.is_running(small), "small ones pass for a while");
    driver.pass(15 * SECOND);
    let late = driver.submit(cached(1, 40, 1)).unwrap();
    assert!(!driver.is_running(late), "and not for ever");
    driver.finish(0);
    driver.finish(0);
    assert!(driver.is_running(large) && driver.is_running(late));
    assert_eq!(driver.caches[&key(1)], 30);
}

#[test]
fn the_cache_goes_with_its_weights() {
    let mut driver = Driver::new(limits());
    driver.settle(cached(1, 40, 10));
    driver.arbiter.unload(driver.now, key(1));
    driver.poll();
    assert!(driver.caches.is_empty() && driver.present.is_empty());
}

#[test]
fn what_turns_out_to_be_needed_is_given_or_waited_for() {
    let mut driver = Driver::new(limits());
    let truth = |budget, cache| Some(Truth { budget, cache, finds_full: false });
    let first = driver.submit_as(request(1, 40, Priority::Normal), 0, truth(20, 20)).unwrap();
    driver.loaded(SECOND);
    assert!(driver.is_running(first));
    let second = driver.submit_as(request(1, 40, Priority::Normal), 0, truth(30, 5)).unwrap();
    assert!(driver.waiting.contains_key(&second), "20 are free");
    let never = driver.submit_as(request(1, 40, Priority::Normal), 0, truth(61, 0)).unwrap();
    assert_eq!(driver.refused, [(never, Rejection::TooLarge { needed: 101, capacity: 100 })]);
    driver.finish(0);
    assert!(driver.is_running(second));
}

#[test]
fn who_finds_the_cache_full_waits_for_the_end_of_another() {
    let mut driver = Driver::new(limits());
    let first = driver.submit(cached(1, 40, 10)).unwrap();
    driver.loaded(SECOND);
    let truth = Truth { budget: 0, cache: 10, finds_full: true };
    let second = driver.submit_as(cached(1, 40, 10), 0, Some(truth)).unwrap();
    driver.pass(SECOND);
    assert!(driver.is_running(first) && driver.waiting.contains_key(&second));
    driver.finish(0);
    assert!(driver.is_running(second));
}

#[test]
fn equals_begin_by_rank_whatever_model_they_wait_for() {
    let mut driver = Driver::new(Limits { active_bound: 1, ..limits() });
    driver.settle(request(2, 10, Priority::Normal));
    let running = driver.submit(request(1, 10, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    let heavy = driver.submit_as(request(1, 10, Priority::Normal), 9, None).unwrap();
    let light = driver.submit_as(request(1, 10, Priority::Normal), 1, None).unwrap();
    let other = driver.submit_as(request(2, 10, Priority::Normal), 0, None).unwrap();
    let matters = driver.submit_as(request(1, 10, Priority::Critical), 99, None).unwrap();
    let mut order = Vec::new();
    for _ in 0..5 {
        order.extend([running, heavy, other, light, matters].into_iter().filter(|ticket| driver.is_running(*ticket)));
        driver.finish(0);
    }
    assert_eq!(order, [running, matters, other, light, heavy], "a crowd at one model does not hold up another");
}

#[test]
fn who_holds_others_back_does_not_hold_back_whom_it_waits_for() {
    let mut driver = Driver::new(limits());
    let running = driver.submit(request(1, 20, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    // Weights that came for somebody, who runs into the lesser rank of one that needs their memory.
    let older = driver.submit_as(Request { budget_bytes: 30, ..request(2, 40, Priority::Normal) }, 9, None).unwrap();
    let large = driver.submit_as(Request { budget_bytes: 60, ..request(1, 20, Priority::Normal) }, 1, None).unwrap();
    driver.pass(15 * SECOND);
    driver.loaded(SECOND);
    assert!(driver.is_running(older) && !driver.is_running(large));
    driver.finish(0);
    driver.finish(0);
    assert!(!driver.is_running(running));
    driver.pass(4 * SECOND);
    assert!(driver.is_running(large), "{:?}", driver.evicted);
}

#[test]
fn what_is_loaded_first_is_not_for_ranks_to_say() {
    let mut driver = Driver::new(limits());
    driver.submit(request(1, 10, Priority::Normal)).unwrap();
    driver.submit_as(request(2, 10, Priority::Normal), 9, None).unwrap();
    driver.submit_as(request(3, 10, Priority::Normal), 1, None).unwrap();
    driver.loaded(SECOND);
    assert_eq!(driver.loading, Some((key(2), 10)));
}

#[test]
fn who_lacks_memory_for_long_is_not_passed_by_lesser_ranks() {
    let mut driver = Driver::new(limits());
    driver.submit(cached(1, 40, 12)).unwrap();
    driver.loaded(SECOND);
    let large = driver.submit_as(cached(1, 40, 30), 9, None).unwrap();
    let light = driver.submit_as(cached(1, 40, 1), 1, None).unwrap();
    assert!(driver.is_running(light), "small ones pass for a while");
    driver.pass(15 * SECOND);
    let late = driver.submit_as(cached(1, 40, 1), 1, None).unwrap();
    assert!(!driver.is_running(late), "and not for ever");
    driver.finish(0);
    driver.finish(0);
    assert!(driver.is_running(large) && driver.is_running(late));
}

#[test]
fn short_work_does_not_wait_for_the_places_of_long_work() {
    let mut driver = Driver::new(Limits { active_bound: 1, ..limits() });
    let long = driver.submit(request(1, 10, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    let next = driver.submit(request(1, 10, Priority::Normal)).unwrap();
    let short = driver.submit(Request { lane: Lane::Short, ..request(1, 10, Priority::Normal) }).unwrap();
    assert!(driver.is_running(long) && driver.is_running(short) && !driver.is_running(next));
}
