//! A GPU node that requests can be sent to: in this process, or elsewhere.

use std::sync::Arc;

use futures::StreamExt;
use provost_types::{BoxStream, ChatEvent, EmbedResponse, GpuReport, Inference, InferenceError, Transcript};

use super::{
    asked::{Chat, Embed, Transcribe},
    peer::Peer,
};

/// Why a node gave no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The node, or the way to it, is gone, or what it said makes no sense.
    Lost(String),
    /// It said why.
    Said(InferenceError),
}

/// The steps of an answer; after a fault comes nothing.
pub(super) type Steps = BoxStream<'static, Result<ChatEvent, Fault>>;

/// See the module.
#[derive(Clone)]
pub(super) enum Seat {
    Here { name: String, node: Arc<dyn Inference> },
    There(Arc<Peer>),
}

impl Seat {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Here { name, .. } => name,
            Self::There(peer) => peer.name(),
        }
    }

    /// What it says of itself now; `None`: it is not heard, or takes nothing new.
    pub(super) fn report(&self) -> Option<Arc<GpuReport>> {
        match self {
            Self::Here { node, .. } => node.report().map(Arc::new),
            Self::There(peer) => peer.report(),
        }
    }

    /// Requests that it was sent since it reported, and that have not ended.
    pub(super) fn sent(&self) -> u64 {
        match self {
            // It counts them itself, at once.
            Self::Here { .. } => 0,
            Self::There(peer) => peer.sent(),
        }
    }

    /// Begins an answer there: the steps, once it has begun.
    pub(super) async fn chat(&self, chat: &Chat) -> Result<Steps, Fault> {
        match self {
            Self::Here { node, .. } => {
                let steps = node.chat(chat.request.clone()).await.map_err(Fault::Said)?;
                Ok(Box::pin(steps.map(|step| step.map_err(Fault::Said))))
            }
            Self::There(peer) => peer.chat(chat).await,
        }
    }

    pub(super) async fn embed(&self, embed: &Embed) -> Result<EmbedResponse, Fault> {
        match self {
            Self::Here { node, .. } => node.embed(embed.request.clone()).await.map_err(Fault::Said),
            Self::There(peer) => peer.embed(embed).await,
        }
    }

    pub(super) async fn transcribe(&self, asked: &Transcribe) -> Result<Transcript, Fault> {
        match self {
            Self::Here { node, .. } => node.transcribe(asked.request.clone()).await.map_err(Fault::Said),
            Self::There(peer) => peer.transcribe(asked).await,
        }
    }

    /// A request was lost there.
    pub(super) fn failed(&self) {
        if let Self::There(peer) = self {
            peer.failed();
        }
    }

    /// An answer came from there to its end.
    pub(super) fn succeeded(&self) {
        if let Self::There(peer) = self {
            peer.succeeded();
        }
    }
}
