//! Failures of the service, and the one table from causes to what callers see.

use std::time::Duration;

use provost_gpu_infer::InferError;
use provost_gpu_vram::Rejection;
use provost_types::{InferenceError, InferenceErrorKind, ModelKind};

/// When a caller should try again whose request got no memory, or whose node is stopping.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a caller is told to wait at most for the end of exclusive use, which often comes before its time.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const TOO_LATE: &str = "PV-INFERENCE-BUSY: the model could not be given memory in time; try again";

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused a thread.
    #[error("PV-GPU-START: a thread could not be started: {0}; check the limits on threads")]
    Thread(#[from] std::io::Error),
    /// The device that was named cannot be used.
    #[error(transparent)]
    Device(#[from] InferError),
    /// The compute threads could not be started.
    #[error("PV-GPU-START: the compute threads could not be started: {0}")]
    Pool(String),
}

pub(crate) fn of_infer(error: InferError) -> InferenceError {
    if error == InferError::OutOfMemory {
        return busy(error.to_string());
    }
    let kind = match error {
        InferError::Missing { .. } => InferenceErrorKind::ModelNotFound,
        InferError::Request(_) => InferenceErrorKind::InvalidRequest,
        InferError::Unreadable { .. }
        | InferError::Malformed { .. }
        | InferError::Unsupported { .. }
        | InferError::Tampered { .. }
        | InferError::Differs { .. }
        | InferError::NoDevice { .. }
        | InferError::OutOfMemory
        | InferError::Failed(_) => InferenceErrorKind::Failed,
    };
    plain(kind, error.to_string())
}

pub(crate) fn not_found(model: &str) -> InferenceError {
    plain(
        InferenceErrorKind::ModelNotFound,
        format!("PV-MODEL-NOT-FOUND: no model `{model}` here; `/v1/models` lists what there is"),
    )
}

pub(crate) fn wrong_kind(model: &str, kind: ModelKind) -> InferenceError {
    let (is, for_what) = match kind {
        ModelKind::Embedding => ("an embedding", "embeddings"),
        ModelKind::Chat => ("a chat", "chat"),
        ModelKind::Speech => ("a speech", "transcriptions"),
    };
    plain(
        InferenceErrorKind::InvalidRequest,
        format!("PV-MODEL-KIND: model `{model}` is {is} model; use it for {for_what}"),
    )
}

pub(crate) fn queue_full(wait: Duration) -> InferenceError {
    let seconds = wait.as_secs_f64().ceil();
    let message = format!("PV-INFERENCE-BUSY: too many requests are waiting; try again in {seconds} seconds");
    busy_for(message, wait)
}

pub(crate) fn waited_too_long() -> InferenceError {
    busy(format!("{TOO_LATE} later"))
}

/// For a request that took longer to read than there is time for: it would the next time, too.
pub(crate) fn too_slow_to_prepare(deadline: Duration) -> InferenceError {
    let seconds = deadline.as_secs();
    of_infer(InferError::Request(format!(
        "the request could not be read within {seconds} seconds; make its JSON schemas simpler, or its messages or its recording shorter"
    )))
}

pub(crate) fn not_drained() -> InferenceError {
    busy("PV-INFERENCE-BUSY: what runs on the device did not end in time; try again later".to_owned())
}

pub(crate) fn stopping() -> InferenceError {
    busy("PV-INFERENCE-BUSY: the node is stopping; try another node".to_owned())
}

/// For what the arbiter of the memory does not let wait, or wait any longer.
pub(crate) fn of_rejection(model: &str, why: &Rejection) -> InferenceError {
    match why {
        Rejection::TooLarge { .. } => plain(
            InferenceErrorKind::Failed,
            format!(
                "PV-GPU-MEMORY: model `{model}`: {why}; give the node more memory or use a smaller model or context"
            ),
        ),
        Rejection::QueueFull { retry_after_micros, .. } => queue_full(Duration::from_micros(*retry_after_micros)),
        Rejection::Overdue { retry_after_micros } => {
            let wait = Duration::from_micros(*retry_after_micros);
            busy_for(format!("{TOO_LATE} in {} seconds", wait.as_secs_f64().ceil()), wait)
        }
        Rejection::Exclusive { retry_after_micros } => {
            let wait = Duration::from_micros(*retry_after_micros).clamp(RETRY_AFTER, LONGEST_RETRY);
            let seconds = wait.as_secs_f64().ceil();
            let message = format!("PV-INFERENCE-BUSY: the device is in exclusive use; try again in {seconds} seconds");
            busy_for(message, wait)
        }
        Rejection::LoadFailed => of_infer(InferError::Failed("its weights could not be loaded".to_owned())),
    }
}

fn busy(message: String) -> InferenceError {
    busy_for(message, RETRY_AFTER)
}

fn busy_for(message: String, wait: Duration) -> InferenceError {
    let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    InferenceError { kind: InferenceErrorKind::Busy, message, retry_after_ms: Some(ms) }
}

fn plain(kind: InferenceErrorKind, message: String) -> InferenceError {
    InferenceError { kind, message, retry_after_ms: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_the_device_in_exclusive_use_is_told_a_time_that_makes_sense() {
        for (micros, ms) in [(1, 1_000), (20_500_000, 20_500), (u64::MAX, 60_000)] {
            let refusal = of_rejection("m", &Rejection::Exclusive { retry_after_micros: micros });
            assert_eq!(refusal.retry_after_ms, Some(ms), "{refusal}");
        }
    }
}
