//! Control-plane node: admin gRPC service over the replicated state.
//!
//! Purpose: takes documents and other administrative requests, checks them, makes each one Raft
//! transaction, and publishes the resulting snapshots; seals secrets and makes tokens on the way.
//! Invariants: a change is recorded in the audit log before it is proposed, or refused; a secret's
//! value leaves this crate only through [`Secrets::unseal`]; every gRPC call is authenticated
//! before it is looked at.
//! Left out: what Cedar text means (an [`Admission`] given from outside), pushing snapshots to
//! other machines, certificates.

mod admission;
mod auth;
mod change;
mod commit;
mod diff;
mod documents;
mod error;
mod explain;
mod machine;
mod node;
mod operations;
mod record;
mod render;
mod secrets;
mod service;
mod store;
mod tokens;

pub use admission::{Admission, NoAdmission};
pub use auth::{AdminToken, Caller, Scope};
pub use change::ChangeReport;
pub use diff::{FieldDiff, ResourceDiff, diff_text};
pub use documents::{Documents, Origin, ParsedDraft, SourceFile, Unread, read as read_documents};
pub use error::{ControlError, ErrorKind};
pub use explain::{Explained, ExplainedField, explain, schema};
pub use node::{ControlConfig, ControlNode, NodeStatus};
pub use operations::{HistoryItem, NewToken, ResourceFilter};
pub use render::{document_json, document_yaml, summary};
pub use secrets::{KeyProvider, LocalFileKey, SecretError, Secrets};

/// One thing that is wrong, with its place in the documents; the form that crosses the wire.
pub use provost_wire::admin::Problem as LocatedProblem;
