//! gRPC services, as tools, by their descriptors or by server reflection.
//!
//! Purpose: each method that takes one message is a tool; a call of the tool is one call of the method.
//! - `frame`, `status`, `line`: gRPC over HTTP/2 with the client of the data plane.
//! - `reflection`, `descriptors`: where descriptors come from, and what is made of them.
//! - `comments`, `schema`, `well_known`: messages as JSON Schema.
//! - `method`, `catalogue`: methods as tools, and why the others are none. `reading`: beside the threads that serve calls.
//! - `message`: a call's arguments as a message, and messages as the tool's result.
//! - `service`: the plugin.
//!
//! Invariants: a call goes to the plugin's address, whatever descriptors, arguments and answers say; a method that cannot
//! be called rightly is no tool, and the log says why; the work that descriptors make is bounded, however messages are
//! nested and whatever they refer to; an answer is bounded before it is read.
//! Left out: methods that take a stream of messages, compression, extensions of messages, retries of gRPC's own (those
//! are the shield's).

mod catalogue;
mod comments;
mod descriptors;
mod frame;
mod line;
mod message;
mod method;
mod reading;
mod reflection;
#[cfg(test)]
mod samples;
mod schema;
mod service;
mod status;
mod well_known;

pub(crate) use catalogue::Filter;
pub(crate) use line::Line;
pub(crate) use service::Grpc;
