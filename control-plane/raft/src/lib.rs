//! One Raft group over any state machine; the sole user of openraft and of the Raft RocksDB.
//!
//! Purpose: the control group and the audit group are the same code with different [`Machine`]s.
//! [`Group`] opens a durable log, elects, replicates opaque commands and hands them to the
//! machine in order. Any replica takes commands and reads; the leader does them.
//! Invariants: a proposal is answered only after its entry is fsynced on a quorum and applied;
//! a command is never logged twice for one proposal; a forwarded message is never forwarded again;
//! any failed write or fsync ends the process, because what is on disk is then unknown; a store
//! made for one cluster, group and node never runs as another.
//! Left out: TLS and who may connect (closures of the caller decide), what commands mean.

mod adapter;
mod admission;
mod batch;
mod codec;
mod config;
mod db;
mod error;
mod flusher;
mod followers;
mod group;
mod grpc;
mod kept;
mod lane;
mod log_bytes;
mod log_store;
mod loopback;
mod lost_leader;
mod machine;
mod membership;
mod membership_rules;
mod metrics;
mod network;
mod pace;
mod peer_service;
mod propose;
mod raft_types;
mod recent;
mod recovery;
mod route;
mod seed;
mod serve;
mod snapshot_file;
mod steward;
mod transport;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use admission::{MAX_INFLIGHT_PROPOSALS, MAX_PROPOSAL_BYTES};
pub use config::{Admission, Forwarding, GroupConfig, MAX_LOG_BYTES, MembershipPolicy, Promotion, Retention, Timings};
pub use error::GroupError;
pub use group::{Group, Proposed};
pub use grpc::{Dial, GrpcTransport, MAX_PEER_MESSAGE_BYTES};
pub use loopback::Loopback;
pub use machine::{AppliedState, Entry, Machine, SnapshotWriter};
pub use metrics::{FollowerMetrics, GroupMetrics, Role};
pub use peer_service::{Authorise, PeerService};
pub use seed::seed;
pub use transport::{NoPeers, Peer, RpcKind, Transport, TransportError};
