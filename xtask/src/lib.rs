//! Repository chores: which crate may depend on which, what a pure crate may touch, and which attacks the audit log was tried
//! with, as checks; and builds for CUDA devices.
//!
//! The rules live in [`arrows`] as data; [`graph`] reads the facts from cargo. Both are a library so
//! that `cargo test` runs the same check as `cargo xtask arrows`. What cargo-deny does better
//! (licences, advisories, registries) is left to `deny.toml`.

mod arrows;
mod attack_matrix;
mod cuda;
mod graph;
mod purity;

pub use arrows::{BANNED, PURE, check, check_banned};
pub use attack_matrix::{Matrix, attack_matrix};
pub use cuda::{BUILT, build as cuda_build};
pub use graph::{Crate, Graph, built_packages};
pub use purity::{SourceTouch, impure_touches};
