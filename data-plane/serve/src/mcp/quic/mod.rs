//! MCP over QUIC (RFC 9000), ALPN `mcp/1`: one bidirectional stream a request.
//!
//! Purpose: calls that do not wait for each other, on a connection that outlives a change of
//! network. The first line of a stream says what HTTP says in headers, the second is the message;
//! it becomes the same request that a POST would make of it.
//! Invariants: each stream brings its own credential; nothing but lists is served before the
//! handshake is complete, since what comes earlier can be replayed; a stream that is reset or
//! stopped, and a connection that ends, cancel what runs for them, in both eras; whoever writes to
//! a client never waits; each line, queue and wait has a bound ([`QuicLimits`]).
//! Left out: the connection's own machinery and HTTP/3 (`crate::quic`, `crate::h3`).

mod call;
mod connection;
mod ending;
pub(crate) mod fuzzing;
mod head;
mod limits;
mod lines;
mod opening;
mod stream;

pub(crate) use connection::Connection;
pub use limits::QuicLimits;
