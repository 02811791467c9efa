//! The UDP socket: connections are admitted here, and go on by their protocol.

mod admission;
mod credit;
mod endpoint;
mod transport;

pub(crate) use credit::Credit;
pub(crate) use endpoint::QuicServer;
