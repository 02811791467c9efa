//! Configuration for data-plane and GPU nodes: the applied state, pushed as it changes.
//!
//! Purpose: a [`PushHub`] follows the published state, encodes each change once, and serves the
//! `Push` service. It reads applied state only, so any control-plane node serves it, in a minority
//! partition too: nodes then keep what they have, and see that it is no longer confirmed.
//! Invariants: a node gets whole states or deltas between whole states, each with the hash of the
//! result; a delta begins exactly where the node is; what waits for a slow node is a place in a
//! shared ring, never a copy; nothing is done once a stream that can be done once a revision.
//! Left out: who may subscribe ([`Authorise`] says), transport and TLS, whether a revision is good
//! (nodes answer, [`judge`] weighs the answers, and what is released is in the state).
//!
//! Messages are bounded: a state or delta larger than [`PART_BYTES`] travels in parts. Every part
//! but the last has an empty hash; a receiver acts on the last one.

mod batch;
mod hub;
mod image;
mod messages;
mod registry;
mod ring;
mod service;
mod staging;
mod stream;
mod subscriber;
mod track;

pub use hub::{Authorise, HubConfig, PushHub};
pub use messages::Health;
pub use service::PushService;
pub use staging::{Before, Part, StageVerdict, judge};
pub use subscriber::Subscriber;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes of documents in one message; one document larger than this has a message of its own.
const PART_BYTES: usize = 1 << 20;
/// Bytes of one message down. A resource came in a proposal of at most 8 MiB, so it fits.
const MAX_DOWN_BYTES: usize = 16 << 20;
/// Bytes of one message up.
const MAX_UP_BYTES: usize = 256 << 10;
/// Deltas that are kept for nodes that are behind or come back.
const RING_BATCHES: usize = 1_024;
/// Bytes of them.
const RING_BYTES: usize = 64 << 20;
/// Streams at a time.
const MAX_SUBSCRIBERS: usize = 10_000;
/// The longest wait for the first message of a stream.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Between two bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(1);
/// A stream whose node says nothing for this long is ended; nodes report health each few seconds.
const SILENT_LIMIT: Duration = Duration::from_secs(30);

/// No lock here is held while something can panic halfway through a change that others would see.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
