//! Front ends of the data plane: MCP over Streamable HTTP (1.1, 2 and 3), WebSocket and QUIC, and the
//! OpenAI-compatible API.
//!
//! Purpose: from bytes on a connection to a [`provost_data_pipeline::Request`], and from its answer
//! back to bytes, in the era and shape of the client. Invariants: nothing runs but through
//! `drive`; each `drive` has a task of its own, so that a client which leaves loses its answer and
//! never the record; no lock is held while something is awaited; every queue has a bound.
//! Left out: decisions (the [`provost_data_pipeline::Plane`] makes them), and where certificates come
//! from ([`ServerTls`] is given them).

pub mod bodies;
mod certificate;
mod client_certificates;
mod config;
mod connect;
pub mod connections;
mod cutting;
pub mod definitions;
mod frontend;
#[doc(hidden)]
pub mod fuzzing {
    //! What fuzz targets need of the inside.
    pub use crate::mcp::quic_fuzzing::quic_stream;
}
pub mod gpus;
mod guards;
mod h3;
mod http;
mod identity;
mod listen;
mod mcp;
pub mod node;
pub mod observe;
mod openai;
mod opening;
pub mod packages;
pub mod push;
mod quic;
pub mod quota;
mod routes;
mod seal;
mod seal_keys;
pub mod siblings;
mod tls;

pub use crate::{
    client_certificates::ClientCertificates,
    config::{FrontendConfig, Readiness, ToolSchemas},
    connect::{ConsentFailed, Consented, Consents},
    frontend::{Frontend, Peer},
    http::{ResponseBody, SseBody},
    listen::{Doors, PlainRule},
    seal::SealFailed,
    seal_keys::SealKeys,
    tls::{ServerTls, TlsUnusable},
};
pub(crate) use mcp::error_response as mcp_error;
pub use mcp::{QuicLimits, SocketLimits};
