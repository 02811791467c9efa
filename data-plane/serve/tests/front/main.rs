//! The front end as clients meet it: good requests in both eras, and every kind of bad one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod bad_input;
mod certificates;
mod h3;
mod legacy;
mod modern;
mod openai;
mod plane;
mod quic;
mod quic_bad;
mod quic_client;
mod quic_early;
mod revocation;
mod siblings;
mod sockets;
mod tls;
mod websocket;
mod world;
