//! The arbiter: behaviour by example, laws under ten thousand random histories.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adapters;
mod caches;
mod driver;
mod examples;
mod exclusive;
mod laws;
mod pins;
mod starvation;

use provost_gpu_vram::{Lane, Priority, Request, Weights, WeightsKey};

/// A second of the clock, in microseconds.
pub const SECOND: u64 = 1_000_000;

/// The key of model `n`.
pub fn key(n: u8) -> WeightsKey {
    WeightsKey::new([n; 32])
}

/// A request for model `n` of `bytes`, which loads in a second and runs for a second.
pub fn request(n: u8, bytes: u64, priority: Priority) -> Request {
    Request {
        weights: Weights { key: key(n), bytes, load_micros: SECOND, class: priority },
        budget_bytes: 0,
        cache_bytes: 0,
        lane: Lane::Long,
        service_micros: SECOND,
        priority,
        patience_micros: 3_600 * SECOND,
    }
}
