//! MCP over WebSocket (RFC 6455), subprotocol `mcp`: one JSON-RPC message a text frame.
//!
//! Purpose: many calls in flight on one connection, answered in any order. A message becomes the
//! same request that a POST would make of it, and goes the same way through the pipeline; there is
//! no second path of a call here.
//! Invariants: the caller is looked at for the upgrade, for each request, and from time to time
//! between; a legacy session lives as long as its connection; a connection that ends cancels what
//! it has in flight, in both eras; whoever writes to a client never waits, and a client that does
//! not read is not read from, then let go; each call's memory and each wait has a bound
//! ([`SocketLimits`]).
//! Left out: WebSocket over HTTP/2 (RFC 8441), compression (RFC 7692: it would let one call's
//! answer be guessed from the length of another's), tokens elsewhere than in `Authorization`.

mod call;
mod closing;
mod connection;
mod handshake;
mod limits;
mod messages;
mod upgrade;
mod writer;

pub(crate) use handshake::asks_for_socket;
pub use limits::SocketLimits;
