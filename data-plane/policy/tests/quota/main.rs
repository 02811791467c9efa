//! Which quotas cover a call, and what the node's accounts say to the ledger.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod book;
mod matching;
mod world;
