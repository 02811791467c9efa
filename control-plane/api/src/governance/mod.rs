//! What governs calls and is made by commands instead of documents: kill switches, pins of tool definitions, and
//! connections of users with upstreams.
//!
//! Invariants: each is a change like any other (one transaction, in the history, recorded in the audit log),
//! but none waits for a staged release, and none is refused because the audit log takes no records: it is
//! recorded when that is back.
//! Left out: what nodes make of it.

mod connections;
mod keeping;
mod kill_scope;
mod kill_switch;
mod near;
mod pins;
mod reports;
mod service;

pub use connections::{OfConnections, Revoked};
pub(crate) use keeping::ConnectionsService;
pub use kill_switch::{Selector, Switched};
pub use pins::{Governed, ToolsOf};
pub(crate) use reports::DefinitionsService;
pub(crate) use service::GovernanceService;
