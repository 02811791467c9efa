//! The memory books, for those who watch.

use std::sync::{Mutex, PoisonError};

use provost_gpu_infer::KvUsage;
use provost_gpu_vram::Usage;

/// The scheduler writes it once a turn; anyone may read it.
#[derive(Debug, Default)]
pub(crate) struct UsageGauge(Mutex<(Usage, KvUsage)>);

impl UsageGauge {
    pub(crate) fn set(&self, usage: Usage, kv: KvUsage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (usage, kv);
    }

    pub(crate) fn get(&self) -> (Usage, KvUsage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
