//! Generating an answer, step by step.

use std::sync::Arc;

use provost_types::{ChatRequest, FinishReason, TokenUsage};

use crate::decoder::{Decoder, Segment};
use crate::error::InferError;
use crate::kv_cache::KvCache;
use crate::sampler::{Sampler, Sampling};
use crate::text::{ChatText, IncrementalText, StopTexts};

/// Tokens of a prompt that one step reads, so that a long prompt does not hold up others.
const PROMPT_CHUNK: usize = 128;
/// Most messages of one conversation.
const MAX_MESSAGES: usize = 4096;

/// A decoder with its text side.
#[derive(Clone, Debug)]
pub struct ChatModel {
    decoder: Arc<Decoder>,
    text: Arc<ChatText>,
}

/// One answer in the making: the request's own cache, sampler and text.
#[derive(Debug)]
pub struct Generation {
    /// Read next: the rest of the prompt, then the last token.
    pending: Vec<u32>,
    cache: KvCache,
    sampler: Sampler,
    /// Its own: models that share weights may differ in tokenizer and end tokens.
    side: Arc<ChatText>,
    text: IncrementalText,
    stop: StopTexts,
    usage: TokenUsage,
    limit: u64,
}

/// What one step brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// New text; may be empty.
    pub text: String,
    /// Present when this was the last step.
    pub finish: Option<Finish>,
}

/// The end of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Tokens used.
    pub usage: TokenUsage,
}

impl ChatModel {
    /// Joins weights and text side.
    pub fn new(decoder: Arc<Decoder>, text: Arc<ChatText>) -> Self {
        Self { decoder, text }
    }

    /// Begins an answer; nothing is computed and little is allocated yet.
    ///
    /// # Errors
    /// [`InferError::Request`] when the request is out of range or does not fit the context.
    pub fn start(&self, request: &ChatRequest) -> Result<Generation, InferError> {
        check_messages(request)?;
        if request.max_tokens == 0 {
            return Err(InferError::Request("max_tokens is 0, must be at least 1".to_owned()));
        }
        let sampling = Sampling::of(request)?;
        let stop = StopTexts::new(&request.stop)?;
        let prompt = self.text.prompt(&request.messages)?;
        if prompt.is_empty() {
            return Err(InferError::Request("the conversation has no tokens".to_owned()));
        }
        let context = self.decoder.context();
        let room = context.saturating_sub(prompt.len());
        if room == 0 {
            return Err(InferError::Request(format!(
                "the conversation has {} tokens, which leaves no room in the model's context of {context}; shorten it",
                prompt.len()
            )));
        }
        let limit = room.min(request.max_tokens as usize);
        Ok(Generation {
            cache: self.decoder.cache(prompt.len() + limit),
            sampler: Sampler::new(sampling),
            side: Arc::clone(&self.text),
            text: IncrementalText::default(),
            stop,
            usage: TokenUsage { prompt: prompt.len() as u64, completion: 0 },
            limit: limit as u64,
            pending: prompt,
        })
    }

    /// Bytes that an answer may need besides weights: its full cache and its scratch.
    pub fn memory_bytes(&self, generation: &Generation) -> u64 {
        let positions = generation.cache.limit();
        let rows = PROMPT_CHUNK.min(positions);
        self.decoder.cache_bytes(positions) + self.decoder.scratch_bytes(rows, positions)
    }

    /// Advances every answer of the batch by a token, or by a chunk of its prompt. The answers
    /// may come from any model with the same decoder.
    ///
    /// # Errors
    /// [`InferError::Failed`] when the pass over the batch failed; none of them has advanced then.
    /// The inner result fails for an answer whose own logits are unusable.
    pub fn step(&self, batch: &mut [&mut Generation]) -> Result<Vec<Result<Step, InferError>>, InferError> {
        let mut segments: Vec<Segment<'_>> = batch
            .iter_mut()
            .map(|generation| Segment {
                tokens: &generation.pending[..generation.pending.len().min(PROMPT_CHUNK)],
                cache: &mut generation.cache,
            })
            .collect();
        let logits = self.decoder.forward(&mut segments).map_err(InferError::compute)?;
        Ok(batch.iter_mut().zip(logits).map(|(generation, logits)| generation.advance(&logits)).collect())
    }
}

impl Generation {
    /// True while the prompt is being read.
    pub fn is_reading(&self) -> bool {
        self.usage.completion == 0
    }

    /// Tokens used so far.
    pub fn usage(&self) -> TokenUsage {
        self.usage
    }

    /// Most tokens the answer may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    fn advance(&mut self, logits: &[f32]) -> Result<Step, InferError> {
        let read = self.pending.len().min(PROMPT_CHUNK);
        self.pending.drain(..read);
        if !self.pending.is_empty() {
            return Ok(Step::default());
        }
        let token = self.sampler.pick(logits)?;
        self.usage.completion += 1;
        if self.side.ends(token) {
            return Ok(self.end(String::new(), FinishReason::Stop));
        }
        let piece = self.text.push(&self.side, token);
        let (shown, stopped) = self.stop.push(&piece);
        if stopped {
            return Ok(self.finished(shown, FinishReason::Stop));
        }
        if self.usage.completion >= self.limit {
            return Ok(self.end(shown, FinishReason::Length));
        }
        self.pending.push(token);
        Ok(Step { text: shown, finish: None })
    }

    /// Ends with what was held back, unless that turns out to be a stop text.
    fn end(&mut self, mut shown: String, reason: FinishReason) -> Step {
        let (rest, stopped) = self.stop.push(&self.text.finish());
        shown.push_str(&rest);
        if stopped {
            return self.finished(shown, FinishReason::Stop);
        }
        shown.push_str(&self.stop.finish());
        self.finished(shown, reason)
    }

    fn finished(&self, text: String, reason: FinishReason) -> Step {
        Step { text, finish: Some(Finish { reason, usage: self.usage }) }
    }
}

fn check_messages(request: &ChatRequest) -> Result<(), InferError> {
    let count = request.messages.len();
    if count == 0 || count > MAX_MESSAGES {
        return Err(InferError::Request(format!("{count} messages, must be 1 to {MAX_MESSAGES}")));
    }
    let known = ["system", "developer", "user", "assistant", "tool"];
    match request.messages.iter().find(|message| !known.contains(&message.role.as_str())) {
        None => Ok(()),
        Some(message) => {
            Err(InferError::Request(format!("role `{}` is not known; known: {}", message.role, known.join(", "))))
        }
    }
}
