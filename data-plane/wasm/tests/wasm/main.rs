//! Guests against the host: what they may, what they may not, and what they do to their neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod answers;
mod cache;
mod hostile;
mod imports;
mod lane;
mod loading;
mod neighbours;
mod offering;
mod python;
mod world;
