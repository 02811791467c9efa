//! What a guest takes of the machine's memory.

use async_trait::async_trait;
use wasmtime::{ResourceLimiterAsync, Result};

use crate::{
    lane::step_aside,
    limits::{BEGINNING_AT_HOME, GROWTH_AT_HOME, MAX_TABLE_ELEMENTS},
};

/// Lets memory grow to a bound, and remembers when it was reached. A guest that is refused may go on with what it has;
/// one that cannot, stops, and the flag says why.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    limit_bytes: usize,
    /// Of all memories of the instance together.
    used_bytes: usize,
    /// Of that what it did not begin with.
    grown_bytes: usize,
    /// All memories are there: what is added to an empty one is growth, too.
    has_begun: bool,
    was_refused: bool,
}

impl MemoryMeter {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: 0, grown_bytes: 0, has_begun: false, was_refused: false }
    }

    /// The bound, if the guest wanted to pass it.
    pub(crate) fn refused(&self) -> Option<usize> {
        self.was_refused.then_some(self.limit_bytes)
    }

    /// Whether a memory may grow, which it has done then.
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> bool {
        let more = desired.saturating_sub(current);
        let used = self.used_bytes.saturating_add(more);
        let fits = used <= self.limit_bytes && maximum.is_none_or(|own| desired <= own);
        if !fits {
            self.was_refused = true;
            return false;
        }
        self.used_bytes = used;
        // What it begins with is no growth.
        if current > 0 || self.has_begun {
            self.grown_bytes = self.grown_bytes.saturating_add(more);
        }
        true
    }

    /// The instance is there. Whether it began with so much memory that one instruction can take long.
    pub(crate) fn begin(&mut self) -> bool {
        self.has_begun = true;
        self.used_bytes.saturating_sub(self.grown_bytes) > BEGINNING_AT_HOME
    }

    fn is_large(&self) -> bool {
        self.grown_bytes > GROWTH_AT_HOME
    }
}

#[async_trait]
impl ResourceLimiterAsync for MemoryMeter {
    async fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let was_large = self.is_large();
        let fits = self.grow(current, desired, maximum);
        if self.is_large() && !was_large {
            // Before it has it: one instruction fills all of it, and nothing interrupts that.
            step_aside().await;
        }
        Ok(fits)
    }

    async fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_grows_to_the_bound_and_no_further() {
        let mut meter = MemoryMeter::new(1 << 20);
        assert!(meter.grow(0, 1 << 19, None));
        // A second memory.
        assert!(meter.grow(0, 1 << 18, None));
        assert!(meter.grow(1 << 18, 1 << 19, None));
        assert_eq!(meter.refused(), None);
        assert_eq!(meter.grown_bytes, 1 << 18, "what it begins with is no growth");
        assert!(!meter.grow(1 << 19, (1 << 19) + 1, None));
        assert_eq!(meter.refused(), Some(1 << 20));
        assert!(meter.table_growing(0, MAX_TABLE_ELEMENTS, None).await.unwrap());
        assert!(!meter.table_growing(0, MAX_TABLE_ELEMENTS + 1, None).await.unwrap());
    }

    #[test]
    fn what_is_added_to_an_empty_memory_is_growth_and_a_large_beginning_is_told() {
        let mut meter = MemoryMeter::new(1 << 30);
        assert!(meter.grow(0, BEGINNING_AT_HOME, None) && !meter.begin());
        assert!(meter.grow(0, GROWTH_AT_HOME + 1, None) && meter.is_large());
        let mut large = MemoryMeter::new(1 << 30);
        assert!(large.grow(0, BEGINNING_AT_HOME + 1, None) && large.begin());
    }

    #[tokio::test]
    async fn who_grows_large_steps_aside_once_and_before_it_has_the_memory() {
        let mut meter = MemoryMeter::new(1 << 30);
        let large = GROWTH_AT_HOME + 1;
        assert!(meter.grow(0, 1 << 20, None));
        let pauses = |growing: &mut (dyn Future<Output = Result<bool>> + Send + Unpin)| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            std::pin::Pin::new(growing).poll(&mut context).is_pending()
        };
        assert!(!pauses(&mut meter.memory_growing(1 << 20, 2 << 20, None)));
        assert!(pauses(&mut meter.memory_growing(2 << 20, large + (2 << 20), None)));
        assert!(!pauses(&mut meter.memory_growing(large + (2 << 20), large + (3 << 20), None)), "it is there already");
    }
}
