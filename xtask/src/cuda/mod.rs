//! Builds for CUDA devices, on machines that have neither a device nor a toolkit.
//!
//! [`toolchain`] brings what the build needs from the Python package index into the user's cache, with its hashes checked;
//! [`build()`] runs cargo with it. Nothing of either is committed. Why candle-core is patched, and what is linked how, says
//! [`manifest`].

mod build;
mod manifest;
mod stub;
mod toolchain;

pub use build::{BUILT, build};
