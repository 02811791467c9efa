//! How much a plugin may use.

use std::time::Duration;

/// Largest component, in bytes. An interpreter with its library has about 18 MB.
pub(crate) const MAX_COMPONENT_BYTES: usize = 64 << 20;
/// Most tools of one plugin.
pub(crate) const MAX_TOOLS: usize = 512;
/// Most prompts of one plugin, most resources, and most templates.
pub(crate) const MAX_ITEMS: usize = 512;
/// Longest URI or template of a resource, in bytes.
pub(crate) const MAX_URI: usize = 2 << 10;
/// Longest name of a tool, in bytes.
pub(crate) const MAX_TOOL_NAME: usize = 128;
/// Deepest JSON that a plugin may give; its answer puts it some levels deeper, and readers take 120.
pub(crate) const MAX_JSON_DEPTH: u32 = 100;
/// Longest log line or progress message, in bytes; the rest is cut off.
pub(crate) const MAX_MESSAGE: usize = 4 << 10;
/// Longest key of the plugin's store, in bytes.
pub(crate) const MAX_KV_KEY: usize = 256;
/// Most headers of a request.
pub(crate) const MAX_HEADERS: usize = 64;
/// Longest URL, and longest headers of a request together, in bytes.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// Most elements of one table of functions: real components have a few thousand.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;
/// Time for a plugin to say what its tools are.
pub(crate) const LOAD_TIME: Duration = Duration::from_secs(10);
/// How long a guest may go on once its call is cancelled.
pub(crate) const CANCEL_GRACE: Duration = Duration::from_millis(250);
/// How often a guest that computes is interrupted, a tick each, until it goes on at a low priority: five milliseconds are
/// more than most calls need, and less than others notice.
pub(crate) const SLICES_AT_HOME: u32 = 5;
/// A guest whose memory grows by more goes on there at once, in bytes: to fill new memory in one go, and to give it back,
/// takes milliseconds that nothing interrupts.
pub(crate) const GROWTH_AT_HOME: usize = 8 << 20;
/// The same of the memory that a guest begins with: interpreters begin with some tens of mebibytes.
pub(crate) const BEGINNING_AT_HOME: usize = 64 << 20;

/// How deep calls of plugins by plugins may go. A plugin that calls itself ends here.
pub const MAX_DEPTH: u8 = 4;

/// Bounds of one plugin. Except for `concurrency` each is for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Calls at a time; others wait until their deadline. Raise it for a plugin that mostly waits for others.
    pub concurrency: usize,
    /// Computing, apart from waiting for what was asked of the host: ticks of the engine's clock, so that a wait counts as
    /// one, and a guest that has to wait for a processor computes nothing. Raise it for work that is much.
    pub compute: Duration,
    /// Linear memory, in bytes; at most what the engine's pool has. Raise it for interpreters and large documents.
    pub memory_bytes: usize,
    /// The answer, as JSON, in bytes.
    pub answer_bytes: usize,
    /// Log lines together, in bytes; what is over it is dropped and counted.
    pub log_bytes: usize,
    /// Progress notifications; what is over it is dropped.
    pub progress_count: u32,
    /// Outbound HTTP requests.
    pub http_requests: u32,
    /// Body of one outbound request, and of its response, in bytes.
    pub http_body_bytes: usize,
    /// Calls of other tools.
    pub nested_calls: u32,
    /// Reads and writes of the plugin's store.
    pub kv_operations: u32,
    /// One value of the plugin's store, in bytes.
    pub kv_value_bytes: usize,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            concurrency: 32,
            compute: Duration::from_secs(30),
            memory_bytes: 64 << 20,
            answer_bytes: 4 << 20,
            log_bytes: 64 << 10,
            progress_count: 256,
            http_requests: 32,
            http_body_bytes: 4 << 20,
            nested_calls: 32,
            kv_operations: 256,
            kv_value_bytes: 64 << 10,
        }
    }
}

impl PluginLimits {
    /// The most that the guest can make the host copy in one go.
    pub(crate) fn transfer_bytes(&self) -> usize {
        /// For what stands around a body: names, headers, the items of a list.
        const AROUND: usize = 1 << 20;
        self.answer_bytes.max(self.http_body_bytes).saturating_add(AROUND)
    }
}
