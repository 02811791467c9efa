//! Mutual TLS between nodes: who is let in, who is not, and what renewal leaves undisturbed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authority;
mod bounds;
mod files;
mod handshake;
mod renewal;
mod server;
