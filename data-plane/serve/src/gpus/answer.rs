//! An answer, from whichever node gives it.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{StreamExt, stream};
use provost_types::{BoxStream, ChatEvent, InferenceError};

use super::{
    Nodes,
    asked::Chat,
    attempt::{Attempt, too_late},
    seat::{Fault, Seat, Steps},
};

/// When the caller shows what it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    AsItComes,
    /// Until then it may be thrown away.
    AtTheEnd,
}

/// See the module.
pub(super) struct Answer {
    nodes: Arc<Nodes>,
    chat: Chat,
    attempt: Attempt,
    shown: Shown,
    /// The node that gives it; `None`: it is over.
    from: Option<(Seat, Steps)>,
    /// Something of it was told: no other node can give the rest.
    is_told: bool,
    /// What is told at the end.
    held: VecDeque<ChatEvent>,
}

impl Answer {
    /// Begins an answer at the best node that takes it.
    pub(super) async fn begin(nodes: Arc<Nodes>, chat: Chat, shown: Shown) -> Result<Self, InferenceError> {
        let (attempt, held) = (Attempt::default(), VecDeque::new());
        let mut answer = Self { nodes, chat, attempt, shown, from: None, is_told: false, held };
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
            let Some((_, steps)) = self.from.as_mut() else {
                return self.held.pop_front().map(Ok);
            };
            let said = steps.next().await;
            let fault = match said {
                Some(Ok(step)) => match self.take(step) {
                    Some(step) => return Some(Ok(step)),
                    None => continue,
                },
                Some(Err(fault)) => fault,
                None => Fault::Lost("it stopped without an end".to_owned()),
            };
            // Its stream goes: what may still run there is cancelled.
            let (seat, _) = self.from.take()?;
            self.held.clear();
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

    /// Takes a step of the node in; what is told of it now, if anything.
    fn take(&mut self, step: ChatEvent) -> Option<ChatEvent> {
        let is_end = matches!(step, ChatEvent::End { .. });
        if is_end && let Some((seat, _)) = self.from.take() {
            self.nodes.counts.answered(&seat);
        }
        if self.shown == Shown::AsItComes {
            self.is_told |= tells(&step);
            return Some(step);
        }
        if is_end {
            self.held.push_back(step);
            return self.held.pop_front();
        }
        let told = match &step {
            // Likelihoods come beside the token that they are of.
            ChatEvent::Tokens(_) => None,
            _ => Some(ChatEvent::Silent),
        };
        if tells(&step) {
            self.held.push_back(step);
        }
        told
    }
}

/// Whether the caller sees something of the answer by this step.
fn tells(step: &ChatEvent) -> bool {
    match step {
        ChatEvent::Delta(_) | ChatEvent::Calls(_) | ChatEvent::Tokens(_) | ChatEvent::End { .. } => true,
        ChatEvent::Silent => false,
    }
}
