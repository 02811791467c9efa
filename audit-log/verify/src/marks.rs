//! What each run of records is asked for: the sizes that a checkpoint or a note of the cluster's log
//! names in it, and when the checkpoints were signed.

use std::{iter::Peekable, sync::Arc, vec::IntoIter};

use crate::{anchor::Known, block_check::Ask};

/// Which sizes lie in which run.
pub(crate) struct Marks {
    tenant: Arc<str>,
    /// Sizes that are still to come, ascending, each with the time of its checkpoint; 0 for a note.
    ahead: Peekable<IntoIter<(u64, u64)>>,
    /// When the newest of the checkpoints behind was signed.
    signed_ns: u64,
}

impl Marks {
    /// For `tenant`'s log, with its checkpoints and the sizes that are noted of it.
    pub(crate) fn new(tenant: &str, known: &[Known], noted: impl Iterator<Item = u64>) -> Self {
        let signed = known.iter().map(|k| (k.checkpoint.size, k.checkpoint.time_ns));
        let mut ahead: Vec<_> = signed.chain(noted.map(|size| (size, 0))).collect();
        ahead.sort_unstable_by_key(|(size, time_ns)| (*size, std::cmp::Reverse(*time_ns)));
        ahead.dedup_by_key(|(size, _)| *size);
        Self { tenant: Arc::from(tenant), ahead: ahead.into_iter().peekable(), signed_ns: 0 }
    }

    /// Of the next run.
    pub(crate) fn ask(&mut self, first: u64, count: u64) -> Ask {
        self.take(first, |_, _| {});
        let signed_ns = self.signed_ns;
        let mut marks = Vec::new();
        self.take(first.saturating_add(count), |size, time_ns| marks.push((size, time_ns)));
        Ask { tenant: self.tenant.clone(), marks, signed_ns }
    }

    /// Passes over sizes of up to `size` records.
    fn take(&mut self, size: u64, mut each: impl FnMut(u64, u64)) {
        while let Some((next, time_ns)) = self.ahead.next_if(|mark| mark.0 <= size) {
            each(next, time_ns);
            self.signed_ns = self.signed_ns.max(time_ns);
        }
    }
}
