//! Control-plane node: admin gRPC service over the replicated state.
//!
//! Purpose: takes documents and other administrative requests, checks them, makes each one Raft
//! transaction, and publishes the resulting snapshots; seals secrets and makes tokens on the way.
//! Invariants: a change and the duty to record it are one entry, and changes are refused while
//! records do not reach the audit log; a secret's value leaves this crate only through [`Secrets::unseal`]; every gRPC call is authenticated
//! before it is looked at.
//! Left out: what Cedar text means (an [`Admission`] given from outside), pushing snapshots to
//! other machines, certificates.

mod admission;
mod audit_checkpoints;
mod auth;
mod backup;
mod bootstrap;
mod carrier;
mod change;
mod cluster_api;
mod commit;
mod diff;
mod documents;
mod error;
mod explain;
mod governance;
pub mod identity;
mod machine;
mod members;
mod merged_uris;
mod node;
mod operations;
mod packages;
mod preview;
pub mod push;
mod quota;
mod reach;
mod reconcile;
mod record;
mod render;
mod retry;
mod secrets;
mod service;
mod store;
mod stored_state;
mod tokens;
mod versions;
mod watch;
mod write_behind;

pub use admission::{Admission, NoAdmission};
pub(crate) use auth::NoLogins;
pub use auth::{AdminToken, Caller, Logins, Scope};
pub use backup::{
    BackupError, BackupHeader, BackupParts, BackupSummary, RestoreTarget, Restored, RestoredNode, restore_backup,
    verify_backup,
};
pub use bootstrap::{Bootstrap, Bootstrapped};
pub use change::ChangeReport;
pub use cluster_api::{ClusterApi, peer_transport};
pub use diff::{FieldDiff, ResourceDiff, diff_text};
pub use documents::{Documents, SourceFile, Unread, read as read_documents};
pub use error::{ControlError, ErrorKind};
pub use explain::{Explained, ExplainedField, explain, schema};
pub use governance::{Governed, OfConnections, Revoked, Selector, Switched, ToolsOf};
pub use members::{
    CertificateEnd, ClusterStatus, Gathered, MemberStatus, NoSubscribers, NodeFacts, ReplicaStanding, SubscriberStatus,
    Subscribers,
};
pub use node::{ControlConfig, ControlNode, Departures, MemberConfig, NodeStatus};
pub use operations::{HistoryItem, NewToken, ResourceFilter};
pub use packages::InstallPlugin;
pub use preview::Preview;
/// What a member's replica is told; see `provost-control-raft`.
pub use provost_control_raft::{Dial, GrpcTransport, NoPeers, Peer, PeerService, Promotion, Timings, Transport};
pub use quota::{QuotaAuthorise, QuotaService};
pub use render::{document_json, document_yaml, summary};
pub use secrets::{
    KeyProvider, KeyRotation, LocalFileKey, SealedSource, SecretError, Secrets, VaultConfig, VaultToken, VaultTransit,
};
pub use service::AdminApi;
pub use watch::{WatchEvent, WatchedChange};

/// One thing that is wrong, with its place in the documents; the form that crosses the wire.
pub use provost_wire::admin::Problem as LocatedProblem;
