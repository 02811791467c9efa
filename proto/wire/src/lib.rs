//! Protobuf wire forms and generated gRPC clients and servers.
//!
//! Purpose: what crosses a socket between Provost's own programs. Wire forms are separate from
//! domain types: [`convert`] maps what both have.
//! Invariants: field numbers are never reused; every message can gain fields.
//! Nodes of two adjacent wire versions understand each other ([`WIRE_VERSIONS`]).
//! Left out: MCP (`provost-mcp`), stored forms (`provost-control-state`), what the calls mean.

/// The admin service, version 1. The documentation of each message is in `proto/admin.proto`.
#[allow(missing_docs, clippy::all)]
pub mod admin {
    tonic::include_proto!("provost.admin.v1");
}
/// What nodes of one cluster say to each other, version 1. See `proto/node.proto`.
#[allow(missing_docs, clippy::all)]
pub mod node {
    tonic::include_proto!("provost.node.v1");
}
/// The version of what nodes say to each other.
pub const WIRE_VERSION: u32 = 1;
/// The versions that this build understands: its own and the one before.
pub const WIRE_VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;

mod client;
pub mod convert;
mod failure;
pub mod state_hash;
pub mod tls;

pub use admin::{admin_client::AdminClient, admin_server::AdminServer};
pub use client::{AdminConnection, BearerToken, admin_over, connect_admin};
