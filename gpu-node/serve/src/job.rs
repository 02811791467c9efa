//! Requests on their way through the node.

use std::sync::Arc;
use std::time::Instant;

use provost_types::{
    ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, InferenceError, ModelKind, TranscribeRequest, Transcript,
};
use tokio::sync::{mpsc, oneshot};

use crate::places::Place;

/// The events of one answer.
pub(crate) type Events = mpsc::Receiver<Result<ChatEvent, InferenceError>>;

/// A request that has not begun.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) arrived: Instant,
    /// Held until the job begins or ends; the queue's bound counts these.
    pub(crate) _place: Place,
}

/// What is asked, and where the answer goes.
pub(crate) enum Work {
    Embed { request: Arc<EmbedRequest>, reply: oneshot::Sender<Result<EmbedResponse, InferenceError>> },
    Chat { request: Arc<ChatRequest>, reply: oneshot::Sender<Result<Events, InferenceError>> },
    Speech { request: Arc<TranscribeRequest>, reply: oneshot::Sender<Result<Transcript, InferenceError>> },
}

/// What is asked.
pub(crate) enum Asked {
    Embed(Arc<EmbedRequest>),
    Chat(Arc<ChatRequest>),
    Speech(Arc<TranscribeRequest>),
}

impl Work {
    pub(crate) fn asked(&self) -> Asked {
        match self {
            Self::Embed { request, .. } => Asked::Embed(Arc::clone(request)),
            Self::Chat { request, .. } => Asked::Chat(Arc::clone(request)),
            Self::Speech { request, .. } => Asked::Speech(Arc::clone(request)),
        }
    }

    pub(crate) fn model(&self) -> &str {
        match self {
            Self::Embed { request, .. } => &request.model,
            Self::Chat { request, .. } => &request.model,
            Self::Speech { request, .. } => &request.model,
        }
    }

    pub(crate) fn tenant(&self) -> &str {
        match self {
            Self::Embed { request, .. } => &request.tenant,
            Self::Chat { request, .. } => &request.tenant,
            Self::Speech { request, .. } => &request.tenant,
        }
    }

    pub(crate) fn kind(&self) -> ModelKind {
        match self {
            Self::Embed { .. } => ModelKind::Embedding,
            Self::Chat { .. } => ModelKind::Chat,
            Self::Speech { .. } => ModelKind::Speech,
        }
    }

    /// True when nobody waits for the answer any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Embed { reply, .. } => reply.is_closed(),
            Self::Chat { reply, .. } => reply.is_closed(),
            Self::Speech { reply, .. } => reply.is_closed(),
        }
    }

    /// Answers with an error; a caller that has left does not mind.
    pub(crate) fn refuse(self, error: InferenceError) {
        match self {
            Self::Embed { reply, .. } => drop(reply.send(Err(error))),
            Self::Chat { reply, .. } => drop(reply.send(Err(error))),
            Self::Speech { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}
