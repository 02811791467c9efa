//! The last deltas, each beginning where the one before it ended.

use std::{collections::VecDeque, sync::Arc};

use super::{
    RING_BATCHES, RING_BYTES,
    batch::{Batch, Point},
};

/// What a stream at some point needs next.
pub(crate) enum After {
    /// This delta.
    Delta(Arc<Batch>),
    /// Nothing: it is where the ring ends, or ahead of this node.
    Nothing,
    /// Everything: the point is unknown or too far back.
    Whole,
}

/// Bounded by count and bytes. It is the queue of every stream at once: a stream keeps its place
/// and nothing else, and one that falls out of it starts anew with a whole state.
pub(crate) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// How many are kept.
    most: usize,
    head: Point,
}

/// Builds with debug assertions, and no others, keep fewer by `PROVOST_TEST_PUSH_RING`, so that tests need no thousand
/// changes.
fn most_batches() -> usize {
    #[cfg(debug_assertions)]
    if let Some(most) = std::env::var("PROVOST_TEST_PUSH_RING").ok().and_then(|text| text.parse().ok()) {
        return most;
    }
    RING_BATCHES
}

impl Ring {
    pub(crate) fn new(head: Point) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, most: most_batches(), head }
    }

    pub(crate) fn head(&self) -> &Point {
        &self.head
    }

    pub(crate) fn push(&mut self, batch: Arc<Batch>) {
        self.head = batch.to.clone();
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
        while self.batches.len() > self.most || self.bytes > RING_BYTES {
            let Some(gone) = self.batches.pop_front() else { return };
            self.bytes -= gone.bytes;
        }
    }

    /// Revisions grow along the ring, or stay where only the key ring changed.
    pub(crate) fn after(&self, at: &Point) -> After {
        if *at == self.head || at.revision > self.head.revision {
            return After::Nothing;
        }
        let before = |batch: &Arc<Batch>| batch.from.as_ref().is_some_and(|f| f.revision < at.revision);
        let first = self.batches.partition_point(before);
        let of_revision = self.batches.range(first..).filter_map(|b| Some((b.from.as_ref()?, b)));
        let here = of_revision.take_while(|(from, _)| from.revision == at.revision).filter(|(from, _)| *from == at);
        // The last one: a key ring may come back to what it was, and going on from there must lead on.
        match here.last() {
            Some((_, batch)) => After::Delta(batch.clone()),
            None => After::Whole,
        }
    }
}
