//! What each run of records is asked for: the checkpoints that lie in it, and when they were signed.

use std::sync::Arc;

use crate::{anchor::Known, block_check::Ask};

/// Which checkpoints lie in which run.
pub(crate) struct Marks<'a> {
    tenant: Arc<str>,
    /// Those that are still to come, by size.
    known: &'a [Known],
    /// When the newest of those behind was signed.
    signed_ns: u64,
}

impl<'a> Marks<'a> {
    /// For `tenant`'s log, with its checkpoints by size.
    pub(crate) fn new(tenant: &str, known: &'a [Known]) -> Self {
        Self { tenant: Arc::from(tenant), known, signed_ns: 0 }
    }

    /// Of the next run.
    pub(crate) fn ask(&mut self, first: u64, count: u64) -> Ask {
        self.take(first, |_, _| {});
        let signed_ns = self.signed_ns;
        let mut marks = Vec::new();
        self.take(first.saturating_add(count), |size, time_ns| marks.push((size, time_ns)));
        Ask { tenant: self.tenant.clone(), marks, signed_ns }
    }

    /// Passes over checkpoints of up to `size` records.
    fn take(&mut self, size: u64, mut each: impl FnMut(u64, u64)) {
        while let Some((next, rest)) = self.known.split_first().filter(|(k, _)| k.checkpoint.size <= size) {
            each(next.checkpoint.size, next.checkpoint.time_ns);
            self.signed_ns = self.signed_ns.max(next.checkpoint.time_ns);
            self.known = rest;
        }
    }
}
