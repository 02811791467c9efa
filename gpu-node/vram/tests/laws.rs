//! Laws of the machine under random histories, and the behaviour of eviction by example.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use provost_gpu_vram::{Admission, DeviceMemory, Drain, Lease, Refusal, WeightsKey};

fn key(n: u8) -> WeightsKey {
    WeightsKey::new([n; 32])
}

/// Makes weights resident and idle.
fn settle(memory: &mut DeviceMemory, n: u8, bytes: u64, reload_micros: u64) -> Vec<WeightsKey> {
    let Admission::Load { lease, evict } = memory.acquire(key(n), bytes, reload_micros).unwrap() else {
        panic!("weights {n} should have been absent");
    };
    memory.loaded(key(n), reload_micros);
    assert_eq!(memory.release(lease), None);
    evict
}

#[test]
fn the_same_content_is_held_once() {
    let mut memory = DeviceMemory::new(100);
    settle(&mut memory, 1, 60, 10);
    let first = memory.acquire(key(1), 60, 10).unwrap();
    let second = memory.acquire(key(1), 60, 10).unwrap();
    assert!(matches!(first, Admission::Ready { .. }));
    assert!(matches!(second, Admission::Ready { .. }));
    assert_eq!(memory.refs(key(1)), 2);
    assert_eq!(memory.usage().weights, 60);
}

#[test]
fn a_second_caller_waits_for_the_first_load() {
    let mut memory = DeviceMemory::new(100);
    let Admission::Load { lease: first, .. } = memory.acquire(key(1), 60, 10).unwrap() else {
        panic!("first caller loads");
    };
    let Admission::Loading { lease: second } = memory.acquire(key(1), 60, 10).unwrap() else {
        panic!("second caller waits");
    };
    memory.load_failed(key(1));
    assert_eq!(memory.usage().weights, 0);
    // Both leases are void now and harmless.
    assert_eq!(memory.release(first), None);
    assert_eq!(memory.release(second), None);
    assert!(matches!(memory.acquire(key(1), 60, 10), Ok(Admission::Load { .. })));
}

#[test]
fn least_recently_used_goes_first_when_worth_is_equal() {
    let mut memory = DeviceMemory::new(100);
    settle(&mut memory, 1, 50, 10);
    settle(&mut memory, 2, 50, 10);
    assert_eq!(settle(&mut memory, 3, 50, 10), vec![key(1)]);
}

#[test]
fn cheap_to_reload_goes_before_dear() {
    let mut memory = DeviceMemory::new(100);
    settle(&mut memory, 1, 50, 10);
    settle(&mut memory, 2, 50, 10_000);
    // 2 is more recent and also dearer; then make 1 more recent: still the cheap one goes.
    let Admission::Ready { lease } = memory.acquire(key(1), 50, 10).unwrap() else {
        panic!("resident");
    };
    memory.release(lease);
    assert_eq!(settle(&mut memory, 3, 50, 10), vec![key(1)]);
}

#[test]
fn no_more_is_evicted_than_needed() {
    let mut memory = DeviceMemory::new(100);
    settle(&mut memory, 1, 10, 1);
    settle(&mut memory, 2, 90, 1_000_000);
    // Taking the least worth first would take 1, then 2; 2 alone is enough, so 1 is spared.
    assert_eq!(settle(&mut memory, 3, 80, 10), vec![key(2)]);
}

#[test]
fn an_old_favourite_ages() {
    let mut memory = DeviceMemory::new(100);
    settle(&mut memory, 1, 50, 100);
    for _ in 0..5 {
        let Ok(Admission::Ready { lease }) = memory.acquire(key(1), 50, 100) else {
            panic!("resident");
        };
        memory.release(lease);
    }
    let mut survived = 0;
    for n in 2..40 {
        if settle(&mut memory, n, 50, 100).contains(&key(1)) {
            break;
        }
        survived += 1;
    }
    assert!(survived > 0, "frequent use should count at first");
    assert!(survived < 37, "but not for ever");
}

#[test]
fn refusals_say_what_is_missing() {
    let mut memory = DeviceMemory::new(100);
    assert_eq!(memory.reserve(101), Err(Refusal::TooLarge { needed: 101, capacity: 100 }));
    settle(&mut memory, 1, 30, 10);
    let _budget = memory.reserve(60).unwrap();
    let refused = memory.reserve(50).unwrap_err();
    assert_eq!(refused, Refusal::NoRoom { needed: 50, free: 10, evictable: 30 });
    assert!(refused.is_temporary());
    assert!(memory.is_ready(key(1)), "a refusal evicts nothing");
}

#[test]
fn draining_waits_for_the_last_lease_and_takes_no_new_one() {
    let mut memory = DeviceMemory::new(100);
    let Admission::Load { lease, .. } = memory.acquire(key(1), 60, 10).unwrap() else {
        panic!("absent");
    };
    assert_eq!(memory.drain(key(1)), Drain::Later);
    assert!(!memory.loaded(key(1), 10), "still leased");
    assert_eq!(memory.acquire(key(1), 60, 10), Err(Refusal::Draining { key: key(1) }));
    assert_eq!(memory.release(lease), Some(key(1)));
    assert_eq!(memory.usage().weights, 0);
    assert_eq!(memory.drain(key(1)), Drain::Absent);
    settle(&mut memory, 1, 60, 10);
    assert_eq!(memory.drain(key(1)), Drain::Drop);
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(u8),
    Loaded(u8),
    Failed(u8),
    Reserve(u64),
    Release(usize),
    Drain(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..8).prop_map(Step::Acquire),
        4 => (0u8..8).prop_map(Step::Loaded),
        1 => (0u8..8).prop_map(Step::Failed),
        2 => (1u64..60).prop_map(Step::Reserve),
        4 => (0usize..16).prop_map(Step::Release),
        1 => (0u8..8).prop_map(Step::Drain),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What a driver would hold: which weights are on the device.
#[derive(Default)]
struct Driver {
    loading: HashMap<u8, u64>,
    present: HashMap<u8, u64>,
    leases: Vec<(Lease, Option<u8>, u64)>,
}

impl Driver {
    fn bytes(&self) -> u64 {
        let budgets: u64 = self.leases.iter().map(|(_, _, bytes)| bytes).sum();
        self.present.values().sum::<u64>() + self.loading.values().sum::<u64>() + budgets
    }

    fn evict(&mut self, memory: &DeviceMemory, keys: &[WeightsKey]) {
        for n in 0..8 {
            if keys.contains(&key(n)) {
                assert!(self.present.remove(&n).is_some(), "evicts only what is present");
                assert!(!self.leases.iter().any(|(_, held, _)| *held == Some(n)), "never evicts what is leased");
                assert_eq!(memory.refs(key(n)), 0);
            }
        }
    }
}

proptest! {
    #[test]
    fn books_match_the_device_and_never_exceed_it(history in steps()) {
        const CAPACITY: u64 = 100;
        let size = |n: u8| 10 + u64::from(n) * 9;
        let mut memory = DeviceMemory::new(CAPACITY);
        let mut driver = Driver::default();
        for step in history {
            match step {
                Step::Acquire(n) => match memory.acquire(key(n), size(n), u64::from(n) * 7) {
                    Ok(Admission::Ready { lease }) => {
                        prop_assert!(driver.present.contains_key(&n));
                        driver.leases.push((lease, Some(n), 0));
                    }
                    Ok(Admission::Loading { lease }) => {
                        prop_assert!(driver.loading.contains_key(&n));
                        driver.leases.push((lease, Some(n), 0));
                    }
                    Ok(Admission::Load { lease, evict }) => {
                        driver.evict(&memory, &evict);
                        driver.loading.insert(n, size(n));
                        driver.leases.push((lease, Some(n), 0));
                    }
                    Err(Refusal::NoRoom { needed, free, evictable }) => {
                        prop_assert!(needed > free + evictable);
                        prop_assert_eq!(free, CAPACITY - driver.bytes());
                    }
                    Err(_) => {}
                },
                Step::Loaded(n) => {
                    if let Some(bytes) = driver.loading.remove(&n)
                        && !memory.loaded(key(n), 5)
                    {
                        driver.present.insert(n, bytes);
                    }
                }
                Step::Failed(n) => {
                    if driver.loading.remove(&n).is_some() {
                        memory.load_failed(key(n));
                        driver.leases.retain(|(_, held, _)| *held != Some(n));
                    }
                }
                Step::Reserve(bytes) => {
                    if let Ok(reserved) = memory.reserve(bytes) {
                        driver.evict(&memory, &reserved.evict);
                        driver.leases.push((reserved.lease, None, bytes));
                    }
                }
                Step::Release(at) => {
                    if !driver.leases.is_empty() {
                        let at = at % driver.leases.len();
                        let (lease, _, _) = driver.leases.swap_remove(at);
                        if let Some(gone) = memory.release(lease) {
                            driver.evict(&memory, &[gone]);
                        }
                    }
                }
                Step::Drain(n) => {
                    if memory.drain(key(n)) == Drain::Drop {
                        driver.evict(&memory, &[key(n)]);
                    }
                }
            }
            let usage = memory.usage();
            prop_assert!(usage.weights + usage.reserved <= CAPACITY);
            prop_assert_eq!(usage.weights + usage.reserved, driver.bytes());
        }
        // Everything given back: only idle weights remain, and all of the device can be had.
        for (lease, _, _) in driver.leases.drain(..) {
            memory.release(lease);
        }
        prop_assert_eq!(memory.usage().reserved, 0);
    }
}
