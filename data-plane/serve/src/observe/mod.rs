//! What a node tells of the calls that are over: metrics, traces and a line of log.
//!
//! Invariants: nothing here waits, and nothing of it holds a call up: counters are atomics of which each thread has its
//! own, and a trace that finds its queue full is dropped and counted. Arguments, answers, credentials, addresses and
//! names of principals are in none of it. Values of labels are bounded in number, whatever callers and upstreams send.
//! Left out: how metrics are printed and where traces are sent (the binary).

mod histogram;
mod kinds;
mod meters;
mod tallies;
mod trace;
mod tracing_of_calls;

pub use histogram::{BOUNDS_NS, Buckets};
pub(crate) use meters::Meters;
pub use meters::{Durations, Requests};
pub(crate) use tallies::code_of;
pub use tallies::{NearLimit, TenantUse};
pub use trace::{CallTrace, SpanIds, TraceEnd, TraceSubject};
pub use tracing_of_calls::{Ratio, Tracing, TracingCounts};

use provost_data_pipeline::Request;
pub use provost_data_pipeline::{Marks, Stage, Usage};

/// What the lines of a call's log stand in, so that each has the ids of the call and its trace. It is made only where the
/// filter of logs lets `provost_call` through.
pub(crate) fn log_span(request: &Request) -> tracing::Span {
    tracing::info_span!(
        target: "provost_call",
        "call",
        call_id = %request.call_id,
        trace_id = %format_args!("{:032x}", trace::trace_of(request).0)
    )
}
