//! MCP over Streamable HTTP, over WebSocket and over QUIC, both eras.

mod answer;
mod asks;
mod classify;
mod connected;
mod denied;
mod desk;
mod get;
mod initialize;
mod legacy;
mod link;
mod modern;
mod outlet;
mod post;
mod queue;
mod quic;
mod request_state;
mod session;
mod sessions;
mod socket;

pub(crate) use answer::{receipt_json, rejection_headers};
pub(crate) use asks::Asks;
pub(crate) use denied::Denied;
pub(crate) use desk::SessionDesk;
pub(crate) use post::error_response;
pub use quic::QuicLimits;
pub(crate) use quic::{Connection as QuicConnection, fuzzing as quic_fuzzing};
pub(crate) use request_state::StateSealer;
pub(crate) use session::SessionSealer;
pub(crate) use sessions::Sessions;
pub use socket::SocketLimits;
pub(crate) use socket::asks_for_socket;
