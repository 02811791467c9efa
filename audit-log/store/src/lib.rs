//! Audit sequencer, segments on disk and the audit Raft group.
//!
//! Purpose: in each process a writer makes leaves of events and proposes them in batches to the
//! audit group, wherever its replicas run; the group's machine gives each record its place, links
//! the chains and writes the files, the same on every replica.
//! Invariants: a record is acknowledged only after its entry is fsynced on a quorum and applied;
//! the files are derived from the Raft log and can be made again from the last persisted state
//! on; a checkpoint never covers records whose files are not fsynced; any failed write ends the
//! writing, it is never retried; the keys of bodies are never in a Raft log as they are, nor in the
//! directory that is copied.
//! Left out: proving (`provost-audit-verify`), who may connect (the server decides), witnesses.

mod audit_log;
mod batch;
mod begin;
mod body_files;
mod catch_up;
mod checkpointer;
mod client;
mod config;
mod disk;
mod entry;
mod erase;
#[cfg(test)]
mod erase_tests;
mod error;
mod export;
mod follow;
mod forward;
mod held;
mod history;
mod hold_subject;
mod indexer;
mod key;
mod key_offer;
mod log_files;
mod machine;
mod merge;
mod node;
mod open_body;
mod outside;
mod own_events;
mod persist;
mod proposer;
mod prover;
mod prune_choice;
mod prune_files;
mod query;
mod recovery;
mod retention;
mod retention_state;
mod rotation;
mod scan;
mod sequencer;
mod service;
mod state;
mod subject_entry;
mod subject_file;
mod subject_keys;
mod subject_names;
mod subject_secret;
mod subject_state;
mod subject_store;
mod tenant_heads;
mod writer;

pub use audit_log::{AuditLog, open};
pub use catch_up::{LeafSource, Replicas, TakeLeaf};
pub use client::{AuditClient, AuditEndpoint, MAX_KEYS_BYTES, fetch_key, fetch_keys};
pub use config::AuditLogConfig;
pub use disk::{DiskOperation, DiskWatch};
pub use entry::{Append, AppendRecord, Command, EntryError, Head, Reply, Rotated};
pub use erase::{ERASE_EVENT, EraseError, EraseOrder, Erased, HoldCheck};
pub use error::AuditError;
pub use export::{ExportError, ExportFormat, OCSF_VERSION, export, ocsf_event};
pub use follow::Follower;
pub use forward::{
    ForwardConfig, ForwardError, ForwardHandle, ForwardStatus, ForwardTarget, Forwarder, OtlpTarget, SyslogTarget,
};
pub use held::HeldCheckpoint;
pub use indexer::build_indexes;
pub use key::CheckpointKey;
pub use machine::{AuditMachine, SharedMachine};
pub use node::{AUDIT_GROUP, AuditNode, AuditNodeConfig, AuditPeers, AuditStatus};
pub use open_body::{Bodies, BodyError, BodyShown, BodyState};
pub use proposer::{LocalProposer, ProposeError, Proposer, WriterState};
pub use prover::Prover;
/// What carries Raft's messages; see `provost-control-raft`.
pub use provost_control_raft::{
    Authorise, Dial, GroupMetrics, GrpcTransport, Peer, PeerService, Promotion, Retention as RaftRetention, Timings,
    Transport,
};
pub use query::{Found, Query, QueryError, Results, Shown, query, query_from, show};
pub use recovery::OpenCall;
pub use retention::{HoldOrder, KeepRule, PruneReport, Retention, RetentionError};
pub use retention_state::{Hold, PruneOrder, RetentionCommand, RetentionReply};
pub use rotation::next_key_file;
pub use scan::QueryStats;
pub use service::{AuditCallers, AuditService, MAX_AUDIT_MESSAGE_BYTES};
pub use state::WriterChain;
pub use subject_entry::{Erasure, KeyCommand, KeyReply, Slot};
pub use subject_file::SubjectPaths;
pub use subject_names::{Identity, stored_identities};
pub use subject_store::{adopt_keys, begin_keys};
pub use writer::{AuditWriter, AuditWriterConfig};
