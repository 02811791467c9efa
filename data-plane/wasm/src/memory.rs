//! What a guest takes of the machine's memory.

use wasmtime::{ResourceLimiter, Result};

use crate::limits::MAX_TABLE_ELEMENTS;

/// Lets memory grow to a bound, and remembers when it was reached. A guest that is refused may go on with what it has;
/// one that cannot, stops, and the flag says why.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    limit_bytes: usize,
    /// Of all memories of the instance together.
    used_bytes: usize,
    /// Of that what it did not begin with.
    grown_bytes: usize,
    was_refused: bool,
}

impl MemoryMeter {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: 0, grown_bytes: 0, was_refused: false }
    }

    /// By how much the guest's memories have grown beyond what they began with, in bytes.
    pub(crate) fn grown(&self) -> usize {
        self.grown_bytes
    }

    /// The bound, if the guest wanted to pass it.
    pub(crate) fn refused(&self) -> Option<usize> {
        self.was_refused.then_some(self.limit_bytes)
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let more = desired.saturating_sub(current);
        let used = self.used_bytes.saturating_add(more);
        let fits = used <= self.limit_bytes && maximum.is_none_or(|own| desired <= own);
        if fits {
            self.used_bytes = used;
            if current > 0 {
                self.grown_bytes = self.grown_bytes.saturating_add(more);
            }
        } else {
            self.was_refused = true;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_to_the_bound_and_no_further() {
        let mut meter = MemoryMeter::new(1 << 20);
        assert!(meter.memory_growing(0, 1 << 19, None).unwrap());
        // A second memory.
        assert!(meter.memory_growing(0, 1 << 18, None).unwrap());
        assert!(meter.memory_growing(1 << 18, 1 << 19, None).unwrap());
        assert_eq!(meter.refused(), None);
        assert_eq!(meter.grown(), 1 << 18, "what it begins with is no growth");
        assert!(!meter.memory_growing(1 << 19, (1 << 19) + 1, None).unwrap());
        assert_eq!(meter.refused(), Some(1 << 20));
        assert!(meter.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert!(!meter.table_growing(0, MAX_TABLE_ELEMENTS + 1, None).unwrap());
    }
}
