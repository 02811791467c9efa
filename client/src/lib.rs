//! An MCP client over every transport that Provost serves.
//!
//! Purpose: what the command line, `provost bridge` and `provost bench` speak to a node with.
//! [`Endpoint`] says where and over what, [`Connector`] opens it. Three ways of using it, each on top of
//! the one before: a [`Lane`] makes one call at a time, most of them on a connection of its own (the load generator); a
//! [`Link`] carries messages both ways, many calls at once, without looking into them (the bridge); a
//! [`Client`] asks and is answered, knows the eras, and serves what the server asks (the command line).
//!
//! Invariants: payloads stay the bytes they came as; every queue, message and wait has a bound with a name;
//! a request that may have run is never sent again by itself, and one that a node refused because it goes
//! is ([`Client::request`]); the token is in no error and no log.
//!
//! Left out: OAuth (a token is given), stdio, taking up a lost stream of events again, and upstreams, which
//! the data plane speaks to by rules of its own (`provost-data-tools`).

mod client;
mod connector;
mod endpoint;
mod error;
mod h3;
mod http;
mod http2;
mod lane;
mod link;
mod outgoing;
mod pending;
mod quic;
mod tls;
mod ws;

pub use client::{Client, EraChoice, Handler, Identity, NoHandler, ServerFacts, is_draining};
pub use connector::{Connector, Options};
pub use endpoint::{Endpoint, EndpointFault, Transport};
pub use error::{ClientError, LinkError};
pub use lane::Lane;
pub use link::{Incoming, Link, LinkReceiver, LinkSender, MAX_IN_FLIGHT, Room};
pub use outgoing::{Outgoing, OutgoingKind};

/// The longest message that is taken from a server.
pub const MAX_MESSAGE_BYTES: usize = provost_mcp::JsonLimits::RESPONSE.max_bytes;
