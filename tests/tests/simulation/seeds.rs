//! Seeds: how many run, in parallel, and what to type when one fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `from` to below `to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.range(0, 1_000) < per_mille
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a scenario under many seeds; names the first that fails.
pub fn run(test: &str, default_seeds: u64, scenario: impl Fn(u64) + Sync) {
    let (first, count) = match variable("PROVOST_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, variable("PROVOST_SIM_SEEDS").unwrap_or(default_seeds)),
    };
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| scenario(seed))) {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                        eprintln!("seed {seed} fails; again with:");
                        eprintln!("PROVOST_SIM_SEED={seed} cargo test -p provost-tests --test simulation {test}");
                        resume_unwind(cause);
                    }
                }
            });
        }
    });
}
