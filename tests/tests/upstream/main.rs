//! Plugins against real upstreams of both eras, over HTTP and stdio, and against broken ones.
// The futures of calls are as deep as what they may ask on the way; only here are they sent to tasks as they are.
#![recursion_limit = "256"]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod asking;
mod bench;
mod broken_http;
mod broken_stdio;
mod credentials;
mod endpoints;
mod eras;
mod grpc;
#[cfg(target_os = "linux")]
mod isolation;
#[cfg(target_os = "linux")]
mod isolation_confined;
#[cfg(target_os = "linux")]
mod isolation_escapes;
mod listening;
mod lists;
mod npm_everything;
mod oauth;
mod openapi;
mod rag;
mod resilience;
mod reuse;
mod several_nodes;
mod toolbox;
