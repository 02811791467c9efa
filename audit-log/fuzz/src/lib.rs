//! What the fuzz targets do with their bytes.
//!
//! Two files, because ordinary tests include them: `targets` by `provost-audit-verify`, `state` by
//! `provost-audit-store`. Run them with a nightly compiler and cargo-fuzz:
//! `cd audit-log && cargo +nightly fuzz run record`.

pub mod state;
pub mod targets;
