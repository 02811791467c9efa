//! Upstream MCP servers: one connection model over Streamable HTTP and stdio, in both eras.
//!
//! - `http`, `answer`, `stdio`: bytes in and out; `walled`: what is built around a process.
//! - `switchboard`: who on a shared connection an incoming message belongs to.
//! - `connection`: one upstream connection (an era, a session or a process) and its exchanges.
//! - `handshake`: discovery, `initialize`, and which era it is.
//! - `endpoints`, `bound`: several equal endpoints, and what lives at one of them.
//! - `audience`: which callers share a legacy session.
//! - `outgoing`: a caller's parameters as the upstream must see them.
//! - `call`, `parking`: one call with everything that may happen on its way.
//! - `listing`: the upstream's definitions, cached.
//! - `listen`, `subscriptions`: what the upstream says between calls.

mod answer;
mod audience;
mod bound;
mod call;
mod connection;
mod endpoints;
mod handshake;
mod headers;
mod http;
mod listen;
mod listing;
mod mcp;
mod outgoing;
mod parking;
mod stdio;
mod subscriptions;
mod switchboard;
mod tasks;
mod walled;

pub(crate) use answer::whole_body;
pub use connection::ServerFacts;
pub use endpoints::EndpointView;
pub(crate) use endpoints::Endpoints;
pub(crate) use http::{HttpTarget, refuse_encoded, shown, transport_error};
pub use listen::ListenFilter;
pub(crate) use listing::ListCache;
pub use listing::ListKind;
pub(crate) use mcp::McpUpstream;
pub(crate) use stdio::StdioTarget;
pub use tasks::rewrite_handles;
pub(crate) use walled::Walled;
