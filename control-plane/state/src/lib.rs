//! Deterministic control-plane state.
//!
//! Purpose: `apply(state, revision, transaction)` as a pure function, with the checks that make a
//! set of resources sound, the history that makes changes explainable, and rollback.
//! Invariants: same state and same transaction give the same result on every node; a rejected
//! transaction changes nothing; every stored reference points at something that exists.
//! Beside the resources the state holds the cluster's own facts ([`Cluster`]) and the quota ledger
//! ([`Ledger`]), and what is known of plugin packages ([`Packages`]); each has commands of its own. With a `NodeGroup` it also holds how far changes are
//! released ([`Release`]), and which changes still have to be recorded ([`Unrecorded`]).
//! Left out: storage and replication (`provost-control-api`, `provost-control-raft`), the meaning
//! of Cedar text (an admission check outside).

mod cluster;
mod command;
mod connections;
mod fields;
mod grpc;
mod guards;
mod history;
mod identity;
mod isolation;
mod key_ring;
mod kill_switches;
mod ledger;
mod models;
mod openapi;
mod outbox;
mod packages;
mod prices;
mod problem;
mod rag;
mod references;
mod release;
mod resilience;
mod rollback;
mod state;
mod tool_aliases;
mod tool_pins;
mod upstreams;
mod wasm;

pub use cluster::{
    AdminTokenHash, AuditCheckpoint, Authority, CaStep, Cluster, ClusterCommand, ClusterReply, JoinToken,
    MAX_ADMIN_TOKENS, MAX_AUDIT_CHECKPOINTS, MAX_AUDIT_LOGS, MAX_JOIN_TOKEN_LIFE_NS, MAX_JOIN_TOKENS, MAX_MEMBERS,
    MAX_REMOVED, Member, NodeVersion, RemovedMember, Rotation, TokenUse,
};
pub use command::{
    CommandError, Draft, Event, Expectation, MAX_MESSAGE_BYTES, MAX_TRANSACTION_CHANGES, SealingKey, StoredCommand,
    Transaction,
};
pub use connections::{Keeping, MAX_CONNECTIONS, claim, takes};
pub use history::{ChangeKind, HistoryEntry, KeyChange, MAX_HISTORY};
pub use key_ring::sealed;
pub use ledger::{
    AccountKey, AccountView, ClockReading, LeaseGrant, LeaseReport, LeaseView, LeaseWant, Ledger, LedgerCommand,
    LedgerReply, LedgerRow, LedgerRowKey, MAX_REPORTS, MAX_WANTS, QuotaId, Span,
};
pub use outbox::{Authorship, MAX_RECORDED_OBJECTS, MAX_UNRECORDED, Unrecorded};
pub use packages::{
    KEPT_PACKAGES, MAX_PACKAGES, MAX_PACKAGES_BYTES, MAX_STORED_PACKAGE_BYTES, MAX_TENANT_PACKAGES,
    MAX_TENANT_PACKAGES_BYTES, MAX_UPLOAD_NS, MAX_UPLOADS, PACKAGE_PART_BYTES, PackageCommand, PackageFacts,
    PackageKey, PackageReply, Packages, PartKey, StoredPackage,
};
pub use problem::{Problem, Rejected};
pub use provost_types::Resources;
pub use release::{Halt, MAX_HALT_REASON_BYTES, MAX_HALT_REASONS, Release, ReleaseCommand, ReleaseReply};
pub use rollback::RollbackError;
pub use state::{Applied, State};
pub use tool_pins::{Seen, approve, see, unknown_tool};
