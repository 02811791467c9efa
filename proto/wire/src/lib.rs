//! Protobuf wire forms and generated gRPC clients and servers.
//!
//! Purpose: what crosses a socket between Provost's own programs. Wire forms are separate from
//! domain types: [`convert`] maps what both have.
//! Invariants: field numbers are never reused; every message can gain fields.
//! Nodes of two adjacent wire versions understand each other ([`understands`]).
//! Left out: MCP (`provost-mcp`), stored forms (`provost-control-state`), what the calls mean.

/// The admin service, version 1. The documentation of each message is in `proto/admin.proto`.
#[allow(missing_docs, clippy::all)]
pub mod admin {
    tonic::include_proto!("provost.admin.v1");
}
/// What is said about the audit log, version 1. See `proto/audit.proto`.
#[allow(missing_docs, clippy::all)]
pub mod audit {
    tonic::include_proto!("provost.audit.v1");
}
/// What administrators stop and let through, version 1. See `proto/governance.proto`.
#[allow(missing_docs, clippy::all)]
pub mod governance {
    tonic::include_proto!("provost.governance.v1");
}
/// What data-plane nodes ask of GPU nodes, version 1. See `proto/gpu.proto`; [`gpu_form`] maps it to domain types.
#[allow(missing_docs, clippy::all)]
pub mod gpu {
    tonic::include_proto!("provost.gpu.v1");
}
/// What guards of an operator's own are asked, version 1. See `proto/guard.proto`.
#[allow(missing_docs, clippy::all)]
pub mod guard {
    tonic::include_proto!("provost.guard.v1");
}
/// How models stand on nodes, version 1. See `proto/models.proto`.
#[allow(missing_docs, clippy::all)]
pub mod models {
    tonic::include_proto!("provost.models.v1");
}
/// What nodes of one cluster say to each other, version 1. See `proto/node.proto`.
#[allow(missing_docs, clippy::all)]
pub mod node {
    tonic::include_proto!("provost.node.v1");
}
/// Plugin packages, version 1. See `proto/packages.proto`.
#[allow(missing_docs, clippy::all)]
pub mod packages {
    tonic::include_proto!("provost.packages.v1");
}
/// What data-plane nodes say to each other, version 1. See `proto/sibling.proto`.
#[allow(missing_docs, clippy::all)]
pub mod sibling {
    tonic::include_proto!("provost.sibling.v1");
}
mod client;
mod codec;
pub mod convert;
mod failure;
pub mod gpu_form;
pub mod state_hash;
pub mod tls;
mod version;

pub use admin::{admin_client::AdminClient, admin_server::AdminServer};
pub use client::{
    AdminConnection, AuditConnection, BearerToken, GovernanceConnection, ModelsConnection, PackagesConnection,
    PolicyConnection, admin_over, audit_over, connect_admin, connect_plain, governance_over, models_over,
    packages_over, policy_over,
};
pub use version::{WIRE_VERSION, understands, wire_version};
