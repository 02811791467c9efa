//! Adapters in the books from when they are read on, which is before a request uses them.
//!
//! An adapter is read with the text side of its model, so that requests can be read; it gets a lease with the first request
//! that uses it. Until then its bytes are set aside: nobody is given them. What nobody waits for goes. One is read at a time where
//! there is no room for more, so that those who wait do not fill the device with adapters over weights that do not fit then.

use std::sync::Arc;

use provost_gpu_infer::ModelSource;
use provost_gpu_vram::WeightsKey;

use super::Scheduler;
use crate::catalogue::Entry;

impl Scheduler {
    /// Sets aside what adapters take that no request has in the books; drops those that nobody waits for.
    pub(super) fn book_adapters(&mut self) {
        let turns = &self.turns;
        let found = self.residency.adapters();
        let loose = found.filter(|(_, key, adapter)| !turns.has_adapter(*key, WeightsKey::new(adapter.digest())));
        let loose: Vec<(Arc<Entry>, u64)> =
            loose.map(|(entry, _, adapter)| (Arc::clone(entry), adapter.bytes())).collect();
        let mut waited_for = self.residency.coming_adapter();
        let mut kept = 0_u64;
        if !loose.is_empty() {
            let names = self.orders.to_keep();
            for (entry, bytes) in loose {
                if names.contains(&entry.name) {
                    kept = kept.saturating_add(bytes);
                } else if self.is_wanted(&entry) {
                    waited_for = waited_for.saturating_add(bytes);
                } else {
                    self.residency.forget_text(&entry);
                }
            }
        }
        self.turns.set_aside(waited_for, kept);
    }

    /// Whether the adapter of a model, if it has one, is there or may be read now.
    pub(super) fn may_read_adapter(&self, entry: &Arc<Entry>) -> bool {
        let bytes = adapter_bytes(entry);
        bytes == 0 || self.residency.text(entry).is_some() || self.turns.has_room_for_adapter(bytes)
    }

    fn is_wanted(&self, entry: &Arc<Entry>) -> bool {
        let asked = self.asked.iter().map(|asked| asked.job.work.model()).chain(self.preparing.models());
        let ordered = self.orders.pending.iter().map(|pending| pending.name.as_str());
        self.turns.is_waited_for(entry) || asked.chain(ordered).any(|name| name == entry.name)
    }
}

/// Bytes of the adapter of a model; 0 where it has none.
pub(super) fn adapter_bytes(entry: &Arc<Entry>) -> u64 {
    entry.source.as_ref().map_or(0, ModelSource::adapter_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
