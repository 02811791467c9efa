//! The answers that are being generated.

use std::collections::HashSet;
use std::time::Instant;

use provost_gpu_infer::{ChatModel, Finish, Generation, InferError, PROMPT_CHUNK, Step, Turn};
use provost_gpu_vram::{Grant, WeightsKey};
use provost_types::{ChatEvent, InferenceError};
use tokio::sync::mpsc;

use crate::contain::contained;
use crate::error;
use crate::fair::{FairShare, Want};

/// Tokens that one pass over a model computes at most, prompts and answers together: more wait less
/// in all, but each running answer longer for its next token.
const STEP_TOKENS: usize = 256;

/// One answer under way.
pub(crate) struct ActiveChat {
    pub(crate) tenant: String,
    pub(crate) key: WeightsKey,
    pub(crate) model: ChatModel,
    pub(crate) generation: Generation,
    pub(crate) events: mpsc::Sender<Result<ChatEvent, InferenceError>>,
    pub(crate) grant: Grant,
    pub(crate) began: Instant,
    /// What it reads in the step that is under way.
    pub(crate) granted: usize,
    pub(crate) ended: bool,
    /// Told once its blocks are free, so that whoever hears it may look at the books.
    pub(crate) last: Option<Result<ChatEvent, InferenceError>>,
}

/// All answers under way.
#[derive(Default)]
pub(crate) struct Chats(Vec<ActiveChat>);

impl Chats {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, chat: ActiveChat) {
        self.0.push(chat);
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|chat| chat.tenant.as_str())
    }

    /// The weights of each.
    pub(crate) fn keys(&self) -> impl Iterator<Item = WeightsKey> {
        self.0.iter().map(|chat| chat.key)
    }

    /// Takes all of them out, to be told that the node stops.
    pub(crate) fn stop(&mut self) {
        for chat in self.0.drain(..) {
            drop(chat.events.try_send(Err(error::stopping())));
        }
    }

    /// Answers that are over, or that nobody waits for; their blocks are free once they are dropped.
    pub(crate) fn take_ended(&mut self) -> Vec<ActiveChat> {
        self.0.extract_if(.., |chat| chat.ended || chat.events.is_closed()).collect()
    }

    /// One pass over each model that has answers under way.
    pub(crate) fn advance(&mut self, fair: &mut FairShare) {
        let keys: HashSet<WeightsKey> = self.0.iter().map(|chat| chat.key).collect();
        for key in keys {
            self.advance_model(key, fair);
        }
    }

    fn advance_model(&mut self, key: WeightsKey, fair: &mut FairShare) {
        let mut batch: Vec<&mut ActiveChat> = self.0.iter_mut().filter(|chat| chat.key == key && !chat.ended).collect();
        let Some(model) = batch.first().map(|chat| chat.model.clone()) else {
            return;
        };
        let wants: Vec<Want<'_>> = batch
            .iter()
            .map(|chat| Want { tenant: &chat.tenant, tokens: chat.generation.wants().min(PROMPT_CHUNK) })
            .collect();
        let mut grants = fair.grant(&wants, STEP_TOKENS).into_iter();
        batch.retain_mut(|chat| {
            chat.granted = grants.next().unwrap_or(0);
            chat.granted > 0
        });
        let mut turns: Vec<Turn<'_>> =
            batch.iter_mut().map(|chat| Turn { tokens: chat.granted, generation: &mut chat.generation }).collect();
        match contained(|| model.step(&mut turns)) {
            Ok(steps) => batch.into_iter().zip(steps).for_each(|(chat, step)| chat.tell(step)),
            Err(cause) => batch.into_iter().for_each(|chat| chat.tell(Err(cause.clone()))),
        }
    }
}

impl ActiveChat {
    /// Passes a step on. A caller that has left ends the answer.
    fn tell(&mut self, step: Result<Step, InferError>) {
        let Step { text, calls, tokens, finish } = match step {
            Ok(step) => step,
            Err(cause) => {
                self.ended = true;
                self.last = Some(Err(error::of_infer(cause)));
                return;
            }
        };
        let mut heard = true;
        // Once the prompt has been read, each step makes a token.
        let made = !self.generation.is_reading();
        if made && text.is_empty() && calls.is_empty() && finish.is_none() {
            heard &= self.events.try_send(Ok(ChatEvent::Silent)).is_ok();
        }
        if !tokens.is_empty() {
            heard &= self.events.try_send(Ok(ChatEvent::Tokens(tokens))).is_ok();
        }
        if !text.is_empty() {
            heard &= self.events.try_send(Ok(ChatEvent::Delta(text))).is_ok();
        }
        if !calls.is_empty() {
            heard &= self.events.try_send(Ok(ChatEvent::Calls(calls))).is_ok();
        }
        self.ended = !heard;
        if let Some(Finish { reason, usage }) = finish {
            self.ended = true;
            self.last = Some(Ok(ChatEvent::End { reason, usage }));
        }
    }
}
