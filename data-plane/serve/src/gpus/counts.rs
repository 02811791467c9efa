//! What came of requests to GPU nodes, for those who watch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::seat::Seat;

/// Requests that were sent to one node, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuNodeCounts {
    /// Answered to the end.
    pub answered: u64,
    /// It had no place.
    pub refused: u64,
    /// It failed.
    pub failed: u64,
    /// The node was lost meanwhile.
    pub lost: u64,
}

/// Of all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuCounts {
    /// Requests that went to another node because the first was lost or failed.
    pub tried_again: u64,
    /// Requests that were refused because no node had a place, by their reports.
    pub full: u64,
    /// Requests that were refused because no node could be asked.
    pub unreached: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By name; of members, and of the node of this process.
    nodes: Mutex<BTreeMap<String, GpuNodeCounts>>,
    tried_again: AtomicU64,
    full: AtomicU64,
    unreached: AtomicU64,
}

impl Counts {
    /// Forgets nodes that are no members any more.
    pub(super) fn keep(&self, is_member: impl Fn(&str) -> bool) {
        self.nodes.lock().retain(|name, _| is_member(name));
    }

    pub(super) fn of(&self, name: &str) -> GpuNodeCounts {
        self.nodes.lock().get(name).copied().unwrap_or_default()
    }

    pub(super) fn all(&self) -> GpuCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GpuCounts { tried_again: read(&self.tried_again), full: read(&self.full), unreached: read(&self.unreached) }
    }

    /// The node answered; it is trusted again, if it was not.
    pub(super) fn answered(&self, seat: &Seat) {
        seat.succeeded();
        self.note(seat, |counts| counts.answered += 1);
    }

    pub(super) fn refused(&self, seat: &Seat) {
        self.note(seat, |counts| counts.refused += 1);
    }

    pub(super) fn failed(&self, seat: &Seat) {
        self.note(seat, |counts| counts.failed += 1);
    }

    pub(super) fn lost(&self, seat: &Seat) {
        self.note(seat, |counts| counts.lost += 1);
    }

    pub(super) fn tried_again(&self) {
        self.tried_again.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn full(&self) {
        self.full.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unreached(&self) {
        self.unreached.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, seat: &Seat, add: impl FnOnce(&mut GpuNodeCounts)) {
        let mut nodes = self.nodes.lock();
        match nodes.get_mut(seat.name()) {
            Some(counts) => add(counts),
            None => add(nodes.entry(seat.name().to_owned()).or_default()),
        }
    }
}
