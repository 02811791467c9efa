//! Failures of the service, and the one table from causes to what callers see.

use provost_gpu_infer::InferError;
use provost_gpu_vram::Refusal;
use provost_types::{InferenceError, InferenceErrorKind, ModelKind};

/// When a caller that met a full queue should try again.
const RETRY_AFTER_MS: u64 = 1_000;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused a thread.
    #[error("PV-GPU-START: a thread could not be started: {0}; check the limits on threads")]
    Thread(#[from] std::io::Error),
    /// The compute threads could not be started.
    #[error("PV-GPU-START: the compute threads could not be started: {0}")]
    Pool(String),
}

pub(crate) fn of_infer(error: InferError) -> InferenceError {
    let kind = match error {
        InferError::Request(_) => InferenceErrorKind::InvalidRequest,
        InferError::Unreadable { .. }
        | InferError::Malformed { .. }
        | InferError::Unsupported { .. }
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
    };
    plain(
        InferenceErrorKind::InvalidRequest,
        format!("PV-MODEL-KIND: model `{model}` is {is} model; use it for {for_what}"),
    )
}

pub(crate) fn queue_full() -> InferenceError {
    busy("PV-INFERENCE-BUSY: too many requests are waiting; try again later".to_owned())
}

pub(crate) fn waited_too_long() -> InferenceError {
    busy("PV-INFERENCE-BUSY: the model could not be given memory in time; try again later".to_owned())
}

pub(crate) fn stopping() -> InferenceError {
    busy("PV-INFERENCE-BUSY: the node is stopping; try another node".to_owned())
}

/// For a refusal that waiting does not cure.
pub(crate) fn too_large(model: &str, refusal: &Refusal) -> InferenceError {
    plain(
        InferenceErrorKind::Failed,
        format!(
            "PV-GPU-MEMORY: model `{model}`: {refusal}; give the node more memory or use a smaller model or context"
        ),
    )
}

pub(crate) fn failed(cause: &str) -> InferenceError {
    of_infer(InferError::Failed(cause.to_owned()))
}

fn busy(message: String) -> InferenceError {
    InferenceError { kind: InferenceErrorKind::Busy, message, retry_after_ms: Some(RETRY_AFTER_MS) }
}

fn plain(kind: InferenceErrorKind, message: String) -> InferenceError {
    InferenceError { kind, message, retry_after_ms: None }
}
