//! What the machine remembers beside the files, and the file that keeps it.
//!
//! The state file is the machine's durable watermark: everything it says of the files was fsynced
//! before it was renamed into place. What came later is applied again from the Raft log.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::Path,
};

use provost_audit_core::{Frontier, Hash, LogId, chain_start};
use serde::{Deserialize, Serialize};

use crate::{error::AuditError, retention_state::RetentionState};

/// File name below the audit directory.
pub(crate) const STATE_FILE: &str = "state";
const MAGIC: &[u8; 8] = b"PVSTATE\x03";
/// Batches of a writer that can be answered again. More than it ever has in flight.
pub(crate) const REMEMBERED_BATCHES: usize = 16;

/// One log's head and how far its files reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogHead {
    pub frontier: Frontier,
    pub chain: Hash,
    /// Bytes of the segment that holds the next block; 0 when it is not begun.
    pub segment_len: u64,
    /// First leaf of the tail that is written to.
    pub tail_first: u64,
    pub tail_len: u64,
    pub bodies: BodyHead,
}

/// How far the sealed bodies of a log reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BodyHead {
    /// First leaf of the segment whose body file was written to last.
    pub first: u64,
    /// Its bytes; 0 when there is none.
    pub len: u64,
}

impl BodyHead {
    /// What is left of it once the records before `to` were pruned.
    pub(crate) fn behind(self, to: u64) -> Self {
        if self.first < to { Self::default() } else { self }
    }
}

impl LogHead {
    pub(crate) fn empty(origin: &str) -> Self {
        Self {
            frontier: Frontier::default(),
            chain: chain_start(origin),
            segment_len: 0,
            tail_first: 0,
            tail_len: 0,
            bodies: BodyHead::default(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.frontier.size()
    }
}

/// A writer's place in one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterChain {
    /// Epoch of its last record there.
    pub epoch: u64,
    /// Number of that record.
    pub seq: u64,
    /// Its leaf hash; zeros before the first.
    pub prev: Hash,
}

impl WriterChain {
    /// The sequence number that a record of `epoch` must carry.
    pub(crate) fn next_seq(&self, epoch: u64) -> u64 {
        if self.epoch == epoch { self.seq + 1 } else { 1 }
    }
}

/// A writer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Writer {
    pub epoch: u64,
    pub next_batch: u64,
    pub recent: VecDeque<Applied>,
    pub chains: BTreeMap<LogId, WriterChain>,
}

/// A batch that was applied, so that it can be answered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub batch: u64,
    /// Hash of its last leaf. Leaves link backwards, so it names the batch: another process that
    /// took the same epoch is told from the one that sends again.
    pub last: Hash,
    /// For each log its first index.
    pub places: Vec<(LogId, u64)>,
}

/// An intent without outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenIntent {
    pub index: u64,
    pub writer: String,
    pub epoch: u64,
}

/// A head that waits for its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedHead {
    pub size: u64,
    pub root: Hash,
    pub chain: Hash,
}

/// The checkpoint held in consensus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signed {
    pub head: SealedHead,
    pub note: String,
}

/// Everything; equal on every node after the same entries (except `raft`, which names the node's
/// own view of membership).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineState {
    pub cluster: String,
    /// Index of the last applied entry; `None` before the first.
    pub applied: Option<u64>,
    /// The Raft crate's own bytes that belong to `applied`.
    pub raft: Option<Vec<u8>>,
    pub logs: BTreeMap<LogId, LogHead>,
    pub writers: BTreeMap<String, Writer>,
    /// By log and call id.
    pub intents: BTreeMap<(LogId, u128), OpenIntent>,
    pub sealed: BTreeMap<LogId, SealedHead>,
    pub checkpoints: BTreeMap<LogId, Signed>,
    /// Index of the last entry about keys of bodies: the file of keys must know it too.
    pub body_keys: Option<u64>,
    /// What was pruned, and what must not be.
    pub retention: RetentionState,
    /// The latest checkpoint that witnesses cosigned, with its size.
    pub cosigned: BTreeMap<LogId, (u64, String)>,
    /// Keys that signed, with the record of the cluster's log that named each; empty: the first still
    /// does.
    pub keys: Vec<(Option<u64>, [u8; 32])>,
}

impl MachineState {
    /// File form: mark, SHA-256 of the body, body.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let body = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let mut out = Vec::with_capacity(body.len() + 40);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&Hash::of(&body).0);
        out.extend_from_slice(&body);
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin with its mark")?;
        let (sum, body) = rest.split_at_checked(32).ok_or("it is cut")?;
        if Hash::of(body).0 != sum {
            return Err("its checksum does not hold");
        }
        postcard::from_bytes(body).map_err(|_| "its contents cannot be read")
    }

    /// Reads the state file; `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, AuditError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(AuditError::io(path)(e)),
        };
        let wrong = |why: &str| AuditError::State { path: path.to_owned(), why: why.to_owned() };
        Self::decode(&bytes).map(Some).map_err(wrong)
    }
}
