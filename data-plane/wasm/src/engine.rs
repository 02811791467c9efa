//! The engine: one a node.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::{
    AotCache, PluginError,
    lane::{OF_COMPILING, SlowLane, give_way},
    limits::MAX_TABLE_ELEMENTS,
    link::Links,
    shared::SharedComponents,
    shares::TenantShares,
    ticker::Ticker,
};

/// Most memories in one component. What Rust makes has one; interpreters have up to three.
const MEMORIES_A_COMPONENT: u32 = 4;
/// Most tables in one component.
const TABLES_A_COMPONENT: u32 = 16;
/// Most core instances in one component: an interpreter and its libraries.
const CORE_INSTANCES_A_COMPONENT: u32 = 64;
/// What the runtime may need for one instance beside its memory.
const INSTANCE_BYTES: usize = 4 << 20;
/// Stack of one call: the guest's part and the host's.
const STACK_BYTES: usize = 1 << 20;
/// The guest's part.
const GUEST_STACK_BYTES: usize = 512 << 10;
/// Of each memory slot so much stays mapped between calls and is zeroed by hand, which is faster than to ask the
/// system for pages again. A Rust guest touches a few hundred kilobytes at most.
const WARM_MEMORY_BYTES: usize = 256 << 10;
const WARM_TABLE_BYTES: usize = 16 << 10;
/// The same where the kernel tells which pages were written to (PAGEMAP_SCAN, Linux 6.7): only these are zeroed. What
/// Rust makes touches little, but at the end of the first mebibyte, where its stack begins and its data follow.
const WARM_MEMORY_BYTES_SCANNED: usize = 2 << 20;

/// What the engine may take of the machine.
#[derive(Debug)]
pub struct EngineConfig {
    /// Calls of all plugins at a time, of which three in four may be one tenant's; others wait until their deadline. A
    /// plugin that is loaded has a place too, for which one in eight may be one tenant's. Each reserves 16 GiB of
    /// addresses (not of memory), of which a process has 128 TiB.
    pub concurrency: u32,
    /// The most that any plugin's `memory_bytes` may be.
    pub max_memory_bytes: usize,
    /// Threads that compile, at a low priority. One component is compiled at a time; more threads make it faster.
    pub compile_threads: usize,
    /// Threads on which calls go on that compute for long, at a low priority. More help where such calls are the rule.
    pub slow_threads: usize,
    /// Where machine code is kept; `None`: nowhere, every start compiles.
    pub cache: Option<AotCache>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let half = (cores / 2).max(1);
        Self { concurrency: 128, max_memory_bytes: 1 << 30, compile_threads: half, slow_threads: half, cache: None }
    }
}

/// Compiles components and runs them.
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) links: Links,
    pub(crate) ticker: Ticker,
    /// One for each slot of the pool: whoever has one finds a slot.
    pub(crate) places: Semaphore,
    /// Of these, what the calls and the loads of one tenant may have.
    pub(crate) shares: TenantShares,
    /// One component at a time.
    pub(crate) compiling: Arc<Semaphore>,
    pub(crate) compilers: rayon::ThreadPool,
    pub(crate) lane: SlowLane,
    pub(crate) cache: Option<AotCache>,
    pub(crate) components: SharedComponents,
    /// For [`crate::cache::Entry`].
    pub(crate) compiler: [u8; 32],
    pub(crate) max_memory_bytes: usize,
}

impl Engine {
    /// Reserves the pool and starts the clock.
    pub fn new(config: EngineConfig) -> Result<Arc<Self>, PluginError> {
        let failed = |what: &str, why: &dyn std::fmt::Display| PluginError::Unavailable(format!("{what}: {why}"));
        let engine = wasmtime::Engine::new(&settings(&config, Enabled::Yes))
            .or_else(|_| wasmtime::Engine::new(&settings(&config, Enabled::No)))
            .map_err(|cause| failed("no engine", &cause))?;
        let ticking = engine.weak();
        let tick = move || {
            if let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
            }
        };
        let ticker = Ticker::start(tick).map_err(|cause| failed("no thread for its clock", &cause))?;
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(config.compile_threads.max(1))
            .thread_name(|i| format!("plugin-compiler-{i}"))
            .start_handler(|_| give_way(OF_COMPILING))
            .build();
        let compilers = threads.map_err(|cause| failed("no threads to compile", &cause))?;
        let lane = SlowLane::start(config.slow_threads).map_err(|cause| failed("no threads for long calls", &cause))?;
        let places = config.concurrency.max(1) as usize;
        Ok(Arc::new(Self {
            links: Links::new(&engine).map_err(|cause| failed("no imports", &cause))?,
            ticker,
            places: Semaphore::new(places),
            shares: TenantShares::of(places),
            compiling: Arc::new(Semaphore::new(1)),
            compilers,
            lane,
            cache: config.cache,
            components: SharedComponents::default(),
            compiler: hash_of(&engine),
            max_memory_bytes: config.max_memory_bytes,
            wasmtime: engine,
        }))
    }

    /// Where machine code is kept.
    pub fn cache(&self) -> Option<&AotCache> {
        self.cache.as_ref()
    }
}

/// `scan`: whether the kernel is asked which pages a call wrote to; where it cannot tell, there is no engine.
fn settings(config: &EngineConfig, scan: Enabled) -> Config {
    let warm_memory = if matches!(scan, Enabled::No) { WARM_MEMORY_BYTES } else { WARM_MEMORY_BYTES_SCANNED };
    let calls = config.concurrency.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_stacks(calls)
        .total_core_instances(calls.saturating_mul(CORE_INSTANCES_A_COMPONENT))
        .total_memories(calls.saturating_mul(MEMORIES_A_COMPONENT))
        .total_tables(calls.saturating_mul(TABLES_A_COMPONENT))
        .max_memories_per_component(MEMORIES_A_COMPONENT)
        .max_tables_per_component(TABLES_A_COMPONENT)
        .max_core_instances_per_component(CORE_INSTANCES_A_COMPONENT)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_memory_size(config.max_memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS)
        .pagemap_scan(scan)
        .linear_memory_keep_resident(warm_memory)
        .table_keep_resident(WARM_TABLE_BYTES);
    let mut settings = Config::new();
    settings
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(GUEST_STACK_BYTES)
        // The same on every processor, and nobody sees by a difference where a call ran.
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        // Where in a guest a trap happened is told to nobody, and would be half of each file.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(None)
        .debug_symbols(false)
        // Nothing in the contract is asynchronous for the guest.
        .concurrency_support(false);
    settings
}

/// What must be equal for machine code to be usable, as one hash.
fn hash_of(engine: &wasmtime::Engine) -> [u8; 32] {
    let mut hasher = Blake3(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

/// The standard library's hasher is not bound to stay the same.
struct Blake3(blake3::Hasher);

impl Hasher for Blake3 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn compiling_gives_way_to_calls() {
        let engine = Engine::new(EngineConfig { concurrency: 1, ..EngineConfig::default() }).unwrap();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let here = niceness();
        let there = engine.compilers.install(niceness);
        assert_eq!(there, (here + OF_COMPILING).min(19));
    }
}
