//! The port through which a group drives a replicated state machine.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// Where the group stands after an entry: its log id and the membership, encoded by this crate.
/// Opaque to machines, which store the bytes atomically with the entry's effect and give back
/// the last ones on start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedState(Vec<u8>);

impl AppliedState {
    /// From stored bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// To store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One committed entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Log index: starts at 0, no holes, and the revision of what the entry changes.
    pub index: u64,
    /// To be stored atomically with the effect. Of a batch stored atomically as a whole, only
    /// the last one matters.
    pub applied: AppliedState,
    /// The command; `None` for Raft's own entries, which change nothing but `applied`.
    pub payload: Option<Bytes>,
}

/// Writes one consistent snapshot; runs on a blocking thread beside later `apply`s.
pub type SnapshotWriter = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// A replicated state machine that persists itself.
///
/// All methods run on blocking threads, one at a time, but for batches that the machine calls quick. An `Err` ends the process: after a failed
/// write nobody knows what is on disk, and a restart replays the log over what is.
///
/// Effects need not be fsynced by `apply`: the log is durable, and a machine that restarts with
/// an older [`AppliedState`] is given the entries (or the snapshot) after it again. Effect and
/// `applied` must be atomic.
pub trait Machine: Send + Sync + 'static {
    /// The last stored [`AppliedState`]; `None` for a machine that has applied nothing.
    fn last_applied(&self) -> io::Result<Option<AppliedState>>;

    /// Applies entries in order and returns one reply each (empty for entries without payload).
    /// Must be deterministic: every node applies the same entries.
    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>>;

    /// Whether applying this batch waits for nothing and takes no longer than handing it to another
    /// thread: then it is applied where it is.
    fn is_quick(&self, _batch: &[Entry]) -> bool {
        false
    }

    /// A writer of the state as it is now. Taking it is quick; writing it may be slow.
    fn snapshot(&self) -> io::Result<SnapshotWriter>;

    /// Replaces the whole state by a snapshot that [`Machine::snapshot`] wrote, verified against
    /// its checksum before this is called, and stores `applied` with it.
    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()>;
}
