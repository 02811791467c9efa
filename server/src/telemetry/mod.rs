//! Traces of calls, sent to an OpenTelemetry receiver: OTLP over HTTP, in protobuf.
//!
//! Invariants: nothing waits for the receiver; what it does not take is given up and counted; a receiver that is away
//! costs one line of log for each new reason.
//! Left out: which calls are told (`provost-data-serve`), metrics (they are fetched), records of the audit log (they are
//! forwarded from its files, and none is given up).

mod export;
mod otlp;
mod spans;

pub use export::Exporting;
