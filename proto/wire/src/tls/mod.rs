//! Mutual TLS 1.3 between the nodes of one cluster, and TLS for administrators.
//!
//! Purpose: whom a connection reaches and who is at its other end. A node's certificate names it
//! by one SPIFFE URI ([`NodeName`]); its [`Identity`] can be replaced while connections run.
//! Invariants: only TLS 1.3, only aws-lc-rs; nothing is trusted but the bundle (or, to join, the
//! one CA that the token names by hash); a server is known by its SPIFFE name, never by its
//! address; sessions are not resumed, so every connection is verified anew; a private key that
//! others can read is refused.
//! Left out: who issues certificates and who is a member (`control-api`'s `identity`), revocation
//! lists (certificates are short-lived, and connections of a removed member are cut, see
//! [`Connections`]), plain TCP. A running connection outlives its certificate: renewal must not
//! break streams.

mod certificate;
mod channel;
mod connections;
mod error;
mod files;
mod host_name;
mod identity;
mod incoming;
mod material;
mod name;
mod pem;
mod verify;

pub use certificate::{
    BACKDATE, Certified, certificate_hash, public_key_of, read_certificate, read_ended, validity_of,
};
pub use channel::{admin_channel, channel, is_address, join_channel, reader_config, readmit_channel};
pub use connections::{Connections, PeerInfo, PeerStream, certified_in, certified_of, peer_of, remote_of};
pub use error::TlsError;
pub use host_name::{HostName, HostNameError};
pub use identity::{Identity, follow_operator};
pub use incoming::{Admit, Incoming, Limits, incoming};
pub use material::Material;
pub use name::{NameError, NodeName, ROLE_SEPARATOR, Role, Roles};
pub use pem::{certificates, encode as encode_pem};
pub use verify::Expect;

use std::time::Duration;

/// How often a connection is probed, by clients here and by servers that serve nodes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A probe without an answer for so long ends the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
