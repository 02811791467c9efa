//! HTTP/3 (RFC 9114): the same service as over TCP.
//!
//! Purpose: the seam between the crate `h3`, which calls itself experimental, and the rest. What
//! comes out of it is an [`http::Request`] with a body, as from hyper, and what goes in is the
//! response; everything else (paths, `Host`, sessions, event streams) is that of HTTP.
//! Invariants: a request whose client stops reading is dropped, which cancels a modern call; a
//! connection takes no more requests than it has streams. Left out: early data (a request waits for
//! the handshake), push, extended CONNECT, WebTransport.

mod backend;
mod body;
mod connection;

pub(crate) use connection::serve;
