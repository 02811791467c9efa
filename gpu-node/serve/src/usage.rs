//! The memory books, for those who watch.

use std::sync::{Mutex, PoisonError};

use provost_gpu_infer::KvUsage;
use provost_gpu_vram::Usage;

/// What the device says of its memory, beside the books. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceNow {
    /// All of it.
    pub total: u64,
    /// What nobody has.
    pub free: u64,
    /// What the books have and the device has not: it is not given away until it is back.
    pub missing: u64,
    /// What the device has less than the books, or more where it is negative, when last nothing ran and nothing was loaded.
    pub drift: i64,
}

/// The scheduler writes it at times, where models compute on a device that measures.
#[derive(Debug, Default)]
pub(crate) struct DeviceGauge(Mutex<Option<DeviceNow>>);

impl DeviceGauge {
    pub(crate) fn set(&self, now: DeviceNow) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub(crate) fn get(&self) -> Option<DeviceNow> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
