//! Black-box tests of the policy engine: what a snapshot decides.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod decisions;
mod explained;
mod laws;
mod listings;
mod problems;
mod remembered;
mod scale;
mod tokens;
mod world;
