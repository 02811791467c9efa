//! Inputs of the benches: one representative call and the state that decides it.
//!
//! Kept apart from the benches so that all of them, and a profiler, measure the same thing. Inputs
//! are fixed: no clock, no randomness. End-to-end load is `provost bench`, not this crate.

mod sample;

pub use sample::{CALL, NOW_NS, call_bytes, event, name, snapshot, tools_list_bytes};
