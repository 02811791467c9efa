//! Settings of a GPU node.

use std::path::PathBuf;

/// Settings of a GPU node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    /// Each sub-directory or `.gguf` file in it is a model. None: the node has no models.
    pub models_dir: Option<PathBuf>,
    /// Bytes that weights, KV caches and scratch may take together. Change it when the machine
    /// is shared, or when a model is refused as too large.
    pub capacity_bytes: u64,
    /// Threads that compute; 0 takes one per processor. Lower it to leave processors to others.
    pub threads: usize,
    /// Most bytes of the KV cache of one model; a request that needs more gets them if there are any.
    /// Raise it for many long answers at once, or to keep more beginnings of conversations.
    pub kv_cache_bytes: u64,
    /// Requests that may wait, of one tenant three quarters of them; more are told to try again.
    /// Raise it for bursts of short requests.
    pub queue_bound: usize,
    /// Answers generated at the same time; each slows the others, all together go faster.
    pub active_chats: usize,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            models_dir: None,
            capacity_bytes: 4 << 30,
            threads: 0,
            kv_cache_bytes: 1 << 30,
            queue_bound: 64,
            active_chats: 16,
        }
    }
}
