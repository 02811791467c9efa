//! Protobuf wire forms and generated gRPC clients and servers.
//!
//! Purpose: what crosses a socket between Provost's own programs. Wire forms are separate from
//! domain types: [`convert`] maps what both have.
//! Invariants: field numbers are never reused; every message can gain fields.
//! Left out: MCP (`provost-mcp`), stored forms (`provost-control-state`), what the calls mean.

/// The admin service, version 1. The documentation of each message is in `proto/admin.proto`.
#[allow(missing_docs, clippy::all)]
pub mod admin {
    tonic::include_proto!("provost.admin.v1");
}
mod client;
pub mod convert;
mod failure;

pub use admin::{admin_client::AdminClient, admin_server::AdminServer};
pub use client::{AdminConnection, BearerToken, connect_admin};
