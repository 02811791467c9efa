//! Whoever waits gets a turn, however unkind the others are.

use provost_gpu_vram::{Limits, Priority, Request};

use crate::driver::Driver;
use crate::{SECOND, request};

/// Runs seconds of one service each, with loads of a second, until `ticket` runs; keeps the queue
/// full of `others`. Gives the seconds that it took.
fn seconds_until_started(limits: Limits, mine: Request, others: &[Request], before: u64) -> u64 {
    let mut driver = Driver::new(limits);
    let mut next = others.iter().cycle();
    let mut ticket = None;
    for second in 0..600 {
        driver.loaded(SECOND);
        while !driver.running.is_empty() && driver.running.len() > limits.active_bound / 2 {
            driver.finish(0);
        }
        while !driver.running.is_empty() && driver.waiting.len() < limits.queue_bound / 2 {
            driver.finish(0);
        }
        if second == before {
            ticket = Some(driver.submit(mine).unwrap());
        }
        while driver.waiting.len() < limits.queue_bound - 1 {
            let _ = driver.submit(*next.next().unwrap());
        }
        if ticket.is_some_and(|ticket| driver.is_running(ticket) || !driver.waiting.contains_key(&ticket)) {
            return second - before;
        }
        if !driver.running.is_empty() {
            driver.finish(0);
        }
        driver.pass(SECOND);
    }
    panic!("it never started");
}

#[test]
fn a_background_request_gets_its_turn_under_a_flood_of_critical_ones() {
    let limits = Limits { headroom_bytes: 0, queue_bound: 24, active_bound: 4, ..Limits::new(100) };
    let mine = request(1, 90, Priority::Background);
    for others in [
        vec![request(2, 90, Priority::Critical)],
        vec![request(2, 60, Priority::Critical), request(3, 30, Priority::Normal)],
        (2..7).map(|n| request(n, 40, Priority::Critical)).collect(),
        (2..40).map(|n| request(n, 10, Priority::Normal)).collect(),
    ] {
        // Twice ageing to the top, then those who were there before, then turns of five seconds.
        let waited = seconds_until_started(limits, mine, &others, 30);
        assert!(waited <= 180, "{} others: {waited} s", others.len());
    }
}

#[test]
fn a_large_budget_gets_its_turn_under_a_flood_of_small_ones() {
    let limits = Limits { headroom_bytes: 0, queue_bound: 24, active_bound: 8, ..Limits::new(100) };
    let mine = Request { budget_bytes: 60, ..request(1, 40, Priority::Normal) };
    let small = Request { budget_bytes: 10, ..request(1, 40, Priority::Normal) };
    let waited = seconds_until_started(limits, mine, &[small], 10);
    assert!(waited <= 60, "{waited} s");
}
