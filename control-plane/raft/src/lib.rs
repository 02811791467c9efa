//! One Raft group over any state machine; the sole user of openraft and of the Raft RocksDB.
//!
//! Purpose: the control group and the audit group are the same code with different [`Machine`]s.
//! [`Group`] opens a durable log, elects, replicates opaque commands and hands them to the
//! machine in order.
//! Invariants: a proposal is answered only after its entry is fsynced on a quorum and applied;
//! any failed write or fsync ends the process, because what is on disk is then unknown; a store
//! made for one cluster, group and node never runs as another.
//! Left out: the wire (a [`Transport`] carries opaque bytes), certificates, what commands mean.

mod adapter;
mod codec;
mod config;
mod db;
mod error;
mod flusher;
mod group;
mod log_store;
mod machine;
mod network;
mod raft_types;
mod serve;
mod snapshot_file;
mod transport;

#[cfg(test)]
mod tests;

pub use config::{GroupConfig, Retention, Timings};
pub use error::GroupError;
pub use group::{Group, GroupMetrics, MAX_INFLIGHT_PROPOSALS, MAX_PROPOSAL_BYTES, Proposed, Role};
pub use machine::{AppliedState, Entry, Machine, SnapshotWriter};
pub use transport::{Loopback, NoPeers, Peer, RpcKind, Transport, TransportError};
