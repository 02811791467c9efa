//! Inputs of the benches: one representative call and the state that decides it.
//!
//! Kept apart from the benches so that all of them, and a profiler, measure the same thing. Inputs
//! are fixed: no randomness, and no clock but that of [`QuotaNode`]. End-to-end load is `provost bench`, not this crate.

mod quota;
mod sample;

pub use quota::{QuotaNode, quota_call};
pub use sample::{CALL, NOW_NS, call_bytes, event, name, snapshot, tools_list_bytes};
