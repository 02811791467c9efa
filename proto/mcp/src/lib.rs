//! The MCP envelope and both protocol eras, without IO.
//!
//! Purpose: what a JSON-RPC message of MCP is, byte for byte, and what each era demands of it.
//! Invariants: payloads stay the bytes they came as; duplicate keys, excess depth and excess size
//! are refused before anything is decided on them; nothing here reads a clock or a socket.
//! Left out: transports (`provost-data-serve`), upstream clients (`provost-data-tools`).

pub mod bridge;
mod canonical;
pub mod capability;
mod envelope;
mod era;
pub mod headers;
mod log_level;
mod message;
pub mod meta;
mod method;
pub mod negotiate;
mod object;
mod raw;
mod rpc;
mod scan;
mod sse;
pub mod trace;

pub use canonical::canonical_bytes;
pub use envelope::{Envelope, EnvelopeFault};
pub use era::{Era, ProtocolVersion};
pub use log_level::LogLevel;
pub use message::{error_message, notification_message, request_message, result_message};
pub use method::Method;
pub use object::{RawObject, array_items, array_of};
pub use raw::RawJson;
pub use rpc::{RequestId, RpcError};
pub use scan::{JsonFault, JsonLimits};
pub use sse::{EventTooLong, SseParser};
pub use trace::TraceParent;
