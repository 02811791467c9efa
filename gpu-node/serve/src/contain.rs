//! Panics of a computation stay in it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use provost_gpu_infer::InferError;

/// A panic while computing fails the request, not the node. What a request holds belongs to it
/// alone, weights are immutable, and blocks become known to others only after a whole pass: nothing
/// half-written survives.
pub(crate) fn contained<T>(work: impl FnOnce() -> Result<T, InferError>) -> Result<T, InferError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("a computation panicked");
        Err(InferError::Failed("the computation failed".to_owned()))
    })
}
