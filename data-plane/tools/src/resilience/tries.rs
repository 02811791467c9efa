//! What one call has tried already.

use std::sync::atomic::{AtomicU32, Ordering};

use super::outliers::Mask;

/// The endpoints that the attempts of one call went to, so that the next one goes elsewhere.
#[derive(Debug)]
pub struct Tries {
    endpoints: AtomicU32,
    is_fair: bool,
}

impl Tries {
    /// A call that was nowhere. `is_fair`: when its time is over, that says something of its upstream.
    pub(crate) fn new(is_fair: bool) -> Self {
        Self { endpoints: AtomicU32::new(0), is_fair }
    }

    /// Where it was.
    pub(crate) fn mask(&self) -> Mask {
        self.endpoints.load(Ordering::Relaxed)
    }

    /// It goes there.
    pub(crate) fn add(&self, endpoint: usize) {
        self.endpoints.fetch_or(1 << endpoint, Ordering::Relaxed);
    }

    pub(crate) fn is_fair(&self) -> bool {
        self.is_fair
    }
}
