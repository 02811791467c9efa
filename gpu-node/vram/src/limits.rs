//! The bounds of an arbiter, each with its name.

const SECOND: u64 = 1_000_000;

/// The bounds of an arbiter. [`Limits::new`] gives values that suit a card of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the device that may be used.
    pub capacity_bytes: u64,
    /// Bytes of them that are never given away: temporaries of the driver, fragmentation.
    pub headroom_bytes: u64,
    /// Requests that may wait. More are refused.
    pub queue_bound: usize,
    /// Requests of one lane that may run at once.
    pub active_bound: usize,
    /// Most bytes of the cache of one model, unless a single request needs more.
    pub cache_bytes: u64,
    /// Weights stay at least this many times as long as they took to load.
    pub residency_loads: u64,
    /// Idle weights may go sooner while the bus has the time to bring them back whenever they are
    /// asked for. False: they never go sooner.
    pub early_eviction: bool,
    /// A request rises by one priority each time it has waited this long. Microseconds.
    pub ageing_micros: u64,
    /// A request that has waited this long for memory holds back those behind it, so that many
    /// small ones cannot starve a large one, and models in use stop for it. Microseconds.
    pub memory_patience_micros: u64,
    /// After this time a use counts half. Microseconds.
    pub demand_half_life_micros: u64,
}

impl Limits {
    /// Limits for a device of `capacity_bytes`, with one part in 64 kept as headroom.
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            headroom_bytes: capacity_bytes / 64,
            queue_bound: 256,
            active_bound: 16,
            cache_bytes: capacity_bytes,
            residency_loads: 4,
            early_eviction: true,
            ageing_micros: 10 * SECOND,
            memory_patience_micros: 15 * SECOND,
            demand_half_life_micros: 120 * SECOND,
        }
    }
}
