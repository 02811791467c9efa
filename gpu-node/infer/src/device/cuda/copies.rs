//! Weights that the host keeps in page-locked memory, by their digest: they come back to the device with one copy and no file.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::driver::result::DriverError;

use super::Pinned;

/// See the module. Those that were used longest ago go when others need the room.
pub(super) struct HostCopies {
    capacity: u64,
    used: u64,
    of: HashMap<[u8; 32], OfWeights>,
    uses: u64,
}

#[derive(Default)]
struct OfWeights {
    tensors: HashMap<String, Arc<Pinned>>,
    bytes: u64,
    last_use: u64,
}

impl HostCopies {
    /// At most so many bytes.
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, of: HashMap::new(), uses: 0 }
    }

    pub(super) fn find(&mut self, weights: [u8; 32], name: &str) -> Option<Arc<Pinned>> {
        self.uses += 1;
        let of = self.of.get_mut(&weights)?;
        of.last_use = self.uses;
        of.tensors.get(name).map(Arc::clone)
    }

    pub(super) fn forget(&mut self, weights: [u8; 32]) {
        if let Some(gone) = self.of.remove(&weights) {
            self.used = self.used.saturating_sub(gone.bytes);
        }
    }

    /// Makes a copy of a tensor, and room for it. None: there is no room, or the system has no such memory left.
    pub(super) fn keep(
        &mut self,
        context: &Arc<CudaContext>,
        weights: [u8; 32],
        name: &str,
        values: &[f32],
    ) -> Option<Arc<Pinned>> {
        let bytes = size_of_val(values) as u64;
        if values.is_empty() || !self.make_room(weights, bytes) {
            return None;
        }
        let copy = Arc::new(
            filled(context, values).inspect_err(|error| tracing::warn!(%error, bytes, "no page-locked memory")).ok()?,
        );
        self.uses += 1;
        let of = self.of.entry(weights).or_default();
        of.last_use = self.uses;
        of.bytes += bytes;
        self.used += bytes;
        of.tensors.insert(name.to_owned(), Arc::clone(&copy));
        Some(copy)
    }

    /// Gives up others until so many bytes are free. False, and nothing is given up, where that is not possible.
    fn make_room(&mut self, weights: [u8; 32], bytes: u64) -> bool {
        let own = self.of.get(&weights).map_or(0, |of| of.bytes);
        if own.saturating_add(bytes) > self.capacity {
            return false;
        }
        while self.used.saturating_add(bytes) > self.capacity {
            let others = self.of.iter().filter(|(key, _)| **key != weights);
            let Some(oldest) = others.min_by_key(|(_, of)| of.last_use).map(|(key, _)| *key) else { return false };
            self.forget(oldest);
        }
        true
    }
}

fn filled(context: &Arc<CudaContext>, values: &[f32]) -> Result<Pinned, DriverError> {
    let mut copy = pinned(context, values.len())?;
    copy.as_mut_slice()?.copy_from_slice(values);
    Ok(copy)
}

/// Page-locked memory for so many values, all zero. It is cached, so that the processor reads it as fast as any other.
#[allow(unsafe_code, reason = "the memory comes as it is")]
pub(super) fn pinned(context: &Arc<CudaContext>, count: usize) -> Result<Pinned, DriverError> {
    // SAFETY: what is there is written below before anybody sees it, and any bits are a value of this type.
    let mut memory = unsafe { context.alloc_pinned_with_flags::<f32>(count, 0) }?;
    memory.as_mut_slice()?.fill(0.0);
    Ok(memory)
}
