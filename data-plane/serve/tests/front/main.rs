//! The front end as clients meet it: good requests in both eras, and every kind of bad one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod bad_input;
mod legacy;
mod modern;
mod openai;
mod plane;
mod sockets;
mod websocket;
mod world;
