//! An answer, from whichever node gives it.

use std::sync::Arc;

use futures::{StreamExt, stream};
use provost_types::{BoxStream, ChatEvent, InferenceError};

use super::{
    Nodes,
    asked::Chat,
    attempt::{Attempt, too_late},
    seat::{Fault, Seat, Steps},
};

/// See the module.
pub(super) struct Answer {
    nodes: Arc<Nodes>,
    chat: Chat,
    attempt: Attempt,
    /// The node that gives it; `None`: it is over.
    from: Option<(Seat, Steps)>,
    /// Something of it was told: no other node can give the rest.
    is_told: bool,
}

impl Answer {
    /// Begins an answer at the best node that takes it.
    pub(super) async fn begin(nodes: Arc<Nodes>, chat: Chat) -> Result<Self, InferenceError> {
        let mut answer = Self { nodes, chat, attempt: Attempt::default(), from: None, is_told: false };
        answer.ask().await?;
        Ok(answer)
    }

    /// The steps, to the end or to a failure.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<ChatEvent, InferenceError>> {
        Box::pin(stream::unfold(self, |mut answer| async move {
            let step = answer.next().await?;
            Some((step, answer))
        }))
    }

    /// Asks nodes until one has begun.
    async fn ask(&mut self) -> Result<(), InferenceError> {
        loop {
            let seat = self.attempt.next(&self.nodes, &self.chat.request.model, self.chat.wanted)?;
            match seat.chat(&self.chat).await {
                Ok(steps) => {
                    self.from = Some((seat, steps));
                    return Ok(());
                }
                Err(fault) => self.attempt.take(&self.nodes.counts, &seat, fault)?,
            }
        }
    }

    async fn next(&mut self) -> Option<Result<ChatEvent, InferenceError>> {
        loop {
            let (_, steps) = self.from.as_mut()?;
            let fault = match steps.next().await {
                Some(Ok(step)) => {
                    self.is_told |= tells(&step);
                    if let ChatEvent::End { .. } = &step
                        && let Some((seat, _)) = self.from.take()
                    {
                        self.nodes.counts.answered(&seat);
                    }
                    return Some(Ok(step));
                }
                Some(Err(fault)) => fault,
                None => Fault::Lost("it stopped without an end".to_owned()),
            };
            // Its stream goes: what may still run there is cancelled.
            let (seat, _) = self.from.take()?;
            if self.is_told {
                return Some(Err(too_late(&self.nodes.counts, &seat, fault)));
            }
            let again = match self.attempt.take(&self.nodes.counts, &seat, fault) {
                Ok(()) => self.ask().await,
                Err(error) => Err(error),
            };
            if let Err(error) = again {
                return Some(Err(error));
            }
        }
    }
}

/// Whether the caller sees something of the answer by this step.
fn tells(step: &ChatEvent) -> bool {
    match step {
        ChatEvent::Delta(_) | ChatEvent::Calls(_) | ChatEvent::Tokens(_) | ChatEvent::End { .. } => true,
        ChatEvent::Silent => false,
    }
}
