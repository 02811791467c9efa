//! The envelope, edits of raw JSON, headers and the shapes of both eras, from outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bridging;
mod envelopes;
mod headers;
mod json_laws;
mod objects;
