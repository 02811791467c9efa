//! Laws under ten thousand random histories.

use proptest::prelude::*;
use provost_gpu_vram::{Drain, ExclusiveRequest, Lane, Limits, Priority, Recovery, Request, Weights};

use crate::driver::{Driver, Exclusive, Truth};
use crate::{SECOND, key};

const CAPACITY: u64 = 100;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        model: u8,
        needs: (u64, u64),
        priority: Priority,
        patience: u64,
        rank: u64,
        truth: Option<Truth>,
        /// Which adapter it uses, if what it needs turns out later; 0 for none.
        adapter: u8,
    },
    Cancel(usize),
    Loaded(u64),
    LoadFailed,
    OutOfMemory,
    Finish(usize),
    Pass(u64),
    Unload(u8),
    Exclusive {
        drain: u64,
        heartbeat: u64,
        most: u64,
    },
    Heartbeat,
    EndExclusive,
    Measure(u64),
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Priority::Background), Just(Priority::Normal), Just(Priority::Critical)]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let needs = || (0u64..30, prop_oneof![Just(0u64), 1u64..30]);
    let truth = (needs(), any::<bool>()).prop_map(|((budget, cache), finds_full)| Truth { budget, cache, finds_full });
    let submit = (0u8..6, needs(), priority(), 1u64..100, 0u64..3, proptest::option::of(truth), 0u8..4).prop_map(
        |(model, needs, priority, patience, rank, truth, adapter)| Step::Submit {
            model,
            needs,
            priority,
            patience,
            rank,
            truth,
            adapter,
        },
    );
    let exclusive =
        (0u64..20, 1u64..10, 1u64..40).prop_map(|(drain, heartbeat, most)| Step::Exclusive { drain, heartbeat, most });
    let step = prop_oneof![
        12 => submit,
        1 => (0usize..8).prop_map(Step::Cancel),
        8 => (1u64..4).prop_map(Step::Loaded),
        1 => Just(Step::LoadFailed),
        1 => Just(Step::OutOfMemory),
        10 => (0usize..8).prop_map(Step::Finish),
        8 => (0u64..12).prop_map(Step::Pass),
        1 => (0u8..6).prop_map(Step::Unload),
        1 => exclusive,
        1 => Just(Step::Heartbeat),
        1 => Just(Step::EndExclusive),
        1 => (0u64..=CAPACITY).prop_map(Step::Measure),
    ];
    proptest::collection::vec(step, 1..80)
}

fn take(driver: &mut Driver, step: Step) {
    match step {
        Step::Submit { model, needs: (budget, cache), priority, patience, rank, truth, adapter } => {
            let weights = Weights {
                key: key(model),
                bytes: 10 + u64::from(model) * 14,
                load_micros: SECOND,
                class: if model < 2 { Priority::Critical } else { Priority::Normal },
            };
            let request = Request {
                weights,
                budget_bytes: budget,
                cache_bytes: cache,
                lane: if model % 2 == 0 { Lane::Long } else { Lane::Short },
                service_micros: SECOND,
                priority,
                patience_micros: patience * SECOND,
            };
            let _ = match truth {
                Some(truth) if adapter > 0 => {
                    driver.submit_tuned(request, rank, truth, (key(100 + adapter), 3 * u64::from(adapter)))
                }
                truth => driver.submit_as(request, rank, truth),
            };
        }
        Step::Cancel(at) => {
            if let Some(ticket) = driver.waiting.keys().nth(at).copied() {
                driver.waiting.remove(&ticket);
                assert!(driver.arbiter.cancel(ticket));
                assert!(!driver.arbiter.cancel(ticket), "once");
            }
        }
        Step::Loaded(took) => driver.loaded(took * SECOND),
        Step::LoadFailed => {
            if let Some((key, _)) = driver.loading.take() {
                driver.arbiter.load_failed(driver.now, key);
                driver.poll();
                assert!(!driver.waiting.values().any(|waiting| waiting.weights.key == key));
            }
        }
        Step::OutOfMemory => {
            if let Some((loading, _)) = driver.loading {
                if let Recovery::Retry { evict } = driver.arbiter.out_of_memory(driver.now, loading) {
                    for victim in evict {
                        assert!(driver.present.remove(&victim).is_some());
                        assert!(!driver.running.iter().any(|(grant, _)| grant.key() == victim));
                    }
                    // Once: if it fails again it is refused.
                    assert_eq!(driver.arbiter.out_of_memory(driver.now, loading), Recovery::Refuse);
                }
                driver.poll();
            }
        }
        Step::Finish(at) => {
            if !driver.running.is_empty() {
                driver.finish(at % driver.running.len());
            }
        }
        Step::Pass(seconds) => driver.pass(seconds * SECOND),
        Step::Unload(model) => {
            let was = driver.present.contains_key(&key(model));
            let drain = driver.arbiter.unload(driver.now, key(model));
            assert!(was || drain != Drain::Drop);
            driver.poll();
        }
        Step::Exclusive { drain, heartbeat, most } => {
            let request = ExclusiveRequest {
                drain_micros: drain * SECOND,
                heartbeat_micros: heartbeat * SECOND,
                most_micros: most * SECOND,
            };
            let _ = driver.arbiter.exclusive(driver.now, request);
            driver.poll();
        }
        Step::Heartbeat => {
            if let Some(token) = driver.holder {
                driver.arbiter.heartbeat(driver.now, token);
            }
        }
        Step::EndExclusive => {
            if let Some(token) = driver.arbiter.exclusive_token() {
                assert!(driver.arbiter.end_exclusive(driver.now, token));
                assert!(!driver.arbiter.end_exclusive(driver.now, token), "once");
                driver.holder = None;
                driver.poll();
            }
        }
        Step::Measure(free) => {
            let drift = driver.arbiter.measure(driver.now, free);
            assert_eq!(drift.measured_free_bytes, free);
            driver.poll();
        }
    }
}

/// Longer than residency, ageing and the patience for memory together: nobody waits for so long
/// on a device that does nothing.
const LONGEST_IDLE: u64 = 60 * SECOND;

/// Everything that runs ends, everything that loads is loaded, and time passes: nobody is left.
fn quiesce(driver: &mut Driver) {
    let mut idle = 0;
    for _ in 0..2_000 {
        if driver.loading.is_some() || !driver.running.is_empty() || driver.arbiter.exclusive_token().is_some() {
            idle = 0;
        }
        driver.loaded(SECOND);
        driver.arbiter.measure(driver.now, CAPACITY);
        driver.poll();
        if !driver.running.is_empty() {
            driver.finish(0);
        } else if driver.loading.is_none() {
            match driver.arbiter.next_wake() {
                Some(wake) => {
                    assert!(wake > driver.now);
                    idle += if driver.waiting.is_empty() { 0 } else { wake - driver.now };
                    assert!(idle <= LONGEST_IDLE, "the device is idle, and there wait {:?}", driver.waiting);
                    driver.now = wake;
                    driver.poll();
                }
                None => break,
            }
        }
    }
    assert!(driver.waiting.is_empty(), "somebody waits for ever: {:?}", driver.waiting);
    assert!(driver.running.is_empty());
    assert_eq!(driver.arbiter.exclusive_token(), None, "exclusive use did not end");
    // Caches and adapters that nobody uses stay until others need their room.
    let kept = driver.caches.values().sum::<u64>() + driver.adapters.values().sum::<u64>();
    assert_eq!(driver.arbiter.usage().reserved, kept);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    /// The laws are the assertions of [`Driver`]: never more than the capacity, never what is
    /// leased, a bounded queue, books that are the device; and here: whatever happened, in the end
    /// nobody waits and nobody has the device alone.
    #[test]
    fn laws_hold_in_every_history(history in history(), early_eviction in any::<bool>(), residency_loads in 0u64..5) {
        let limits = Limits {
            headroom_bytes: 4,
            queue_bound: 12,
            active_bound: 4,
            early_eviction,
            residency_loads,
            ..Limits::new(CAPACITY)
        };
        let mut driver = Driver::new(limits);
        for step in history {
            take(&mut driver, step);
        }
        quiesce(&mut driver);
        let granted = driver.exclusive.iter().filter(|event| **event == Exclusive::Granted).count();
        let lapsed = driver.exclusive.iter().filter(|event| **event == Exclusive::Lapsed).count();
        prop_assert!(lapsed <= granted);
    }
}
