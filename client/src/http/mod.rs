//! Streamable HTTP over HTTP/1.1: one POST a message, answered by JSON or by a stream of events.

mod body;
mod connection;

pub(crate) use body::{Chunks, Reply, read_reply};
pub(crate) use connection::HttpConnection;
