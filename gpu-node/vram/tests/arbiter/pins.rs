//! Weights that stay.

use provost_gpu_vram::{ExclusiveRequest, Limits, Priority, Standing};

use crate::driver::Driver;
use crate::{SECOND, key, request};

fn limits() -> Limits {
    Limits { headroom_bytes: 0, early_eviction: true, residency_loads: 0, ..Limits::new(100) }
}

#[test]
fn pinned_weights_go_for_nobody() {
    let mut driver = Driver::new(Limits { capacity_bytes: 120, headroom_bytes: 20, ..limits() });
    driver.settle(request(1, 80, Priority::Background));
    driver.arbiter.pin(key(1), true);
    driver.submit(request(2, 80, Priority::Critical)).unwrap();
    for _ in 0..100 {
        driver.pass(SECOND);
        assert_eq!(driver.loading, None);
    }
    assert_eq!(driver.arbiter.standing(key(1)), Standing::Ready { leases: 0 });
    driver.arbiter.measure(driver.now, 0);
    driver.poll();
    assert!(driver.evicted.is_empty(), "nor because the device is fuller than it may be");

    driver.arbiter.measure(driver.now, 40);
    driver.arbiter.pin(key(1), false);
    driver.poll();
    assert_eq!((driver.evicted.as_slice(), driver.loading), ([key(1)].as_slice(), Some((key(2), 80))));
}

#[test]
fn who_has_no_room_beside_pinned_weights_holds_nobody_back() {
    let mut driver = Driver::new(limits());
    driver.settle(request(1, 60, Priority::Normal));
    driver.arbiter.pin(key(1), true);
    driver.submit(request(2, 80, Priority::Normal)).unwrap();
    for _ in 0..100 {
        driver.pass(SECOND);
        assert_eq!(driver.loading, None);
    }
    driver.submit(request(3, 30, Priority::Normal)).unwrap();
    driver.poll();
    assert_eq!(driver.loading, Some((key(3), 30)));
}

#[test]
fn pinned_weights_come_back_after_exclusive_use() {
    let mut driver = Driver::new(limits());
    driver.settle(request(1, 80, Priority::Normal));
    driver.arbiter.pin(key(1), true);
    let asked = ExclusiveRequest { drain_micros: SECOND, heartbeat_micros: SECOND, most_micros: SECOND };
    driver.arbiter.exclusive(driver.now, asked).unwrap();
    driver.poll();
    assert_eq!(driver.arbiter.standing(key(1)), Standing::Absent);
    driver.pass(2 * SECOND);
    assert_eq!((driver.loading, driver.arbiter.standing(key(1))), (Some((key(1), 80)), Standing::Loading));
    driver.loaded(SECOND);
    assert!(driver.arbiter.is_pinned(key(1)));
}

#[test]
fn what_is_used_goes_when_it_has_ended() {
    let mut driver = Driver::new(limits());
    driver.submit(request(1, 80, Priority::Normal)).unwrap();
    driver.loaded(SECOND);
    driver.arbiter.unload(driver.now, key(1));
    driver.poll();
    assert_eq!(driver.arbiter.standing(key(1)), Standing::Draining { leases: 1 });
    driver.finish(0);
    assert_eq!((driver.arbiter.standing(key(1)), driver.evicted.len()), (Standing::Absent, 1));
}
