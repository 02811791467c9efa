//! What the fuzz targets do with their bytes.
//!
//! `targets` is a file of its own, because ordinary tests of `provost-data-serve` include it. Run them with a
//! nightly compiler and cargo-fuzz: `cd data-plane && cargo +nightly fuzz run envelope`.

pub mod targets;
