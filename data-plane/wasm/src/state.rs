//! What one call has in the host while its guest runs.

use std::sync::Arc;

use crate::{LogLevel, PluginHost, PluginLimits, memory::MemoryMeter};

/// The data of one store.
pub(crate) struct CallState {
    pub(crate) host: Arc<dyn PluginHost>,
    pub(crate) limits: PluginLimits,
    pub(crate) memory: MemoryMeter,
    /// How many plugins stand above this one.
    pub(crate) depth: u8,
    pub(crate) used: Used,
}

/// What was used of the bounds that are counted.
#[derive(Debug, Default)]
pub(crate) struct Used {
    log_bytes: usize,
    dropped_lines: u64,
    progress: u32,
    http: u32,
    nested: u32,
    kv: u32,
}

impl CallState {
    pub(crate) fn new(host: Arc<dyn PluginHost>, limits: PluginLimits, depth: u8) -> Self {
        Self { host, limits, memory: MemoryMeter::new(limits.memory_bytes), depth, used: Used::default() }
    }

    /// Whether a line of so many bytes may still be logged.
    pub(crate) fn may_log(&mut self, bytes: usize) -> bool {
        let sum = self.used.log_bytes.saturating_add(bytes);
        if sum > self.limits.log_bytes {
            self.used.dropped_lines += 1;
            return false;
        }
        self.used.log_bytes = sum;
        true
    }

    pub(crate) fn may_progress(&mut self) -> bool {
        count(&mut self.used.progress, self.limits.progress_count).is_ok()
    }

    pub(crate) fn may_send(&mut self) -> Result<(), String> {
        count(&mut self.used.http, self.limits.http_requests).map_err(|most| format!("{most} requests a call"))
    }

    pub(crate) fn may_nest(&mut self) -> Result<(), String> {
        count(&mut self.used.nested, self.limits.nested_calls).map_err(|most| format!("{most} calls a call"))
    }

    pub(crate) fn may_keep(&mut self) -> Result<(), String> {
        count(&mut self.used.kv, self.limits.kv_operations).map_err(|most| format!("{most} reads and writes a call"))
    }
}

impl Drop for CallState {
    // However the call ends, the operator learns that lines are missing.
    fn drop(&mut self) {
        let dropped = self.used.dropped_lines;
        if dropped > 0 {
            self.host.log(LogLevel::Warn, &format!("{dropped} lines over the bound of a call were dropped"));
        }
    }
}

/// One more, or the bound.
fn count(used: &mut u32, most: u32) -> Result<(), u32> {
    if *used >= most {
        return Err(most);
    }
    *used += 1;
    Ok(())
}
