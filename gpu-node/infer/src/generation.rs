//! Generating an answer, step by step.

use std::sync::Arc;

use provost_types::{CallDelta, ChatRequest, FinishReason, TokenLogprob, TokenUsage};

use crate::decoder::{Decoder, Segment};
use crate::error::InferError;
use crate::kv_cache::KeyValues;
use crate::logprobs;
use crate::lora::Adapter;
use crate::paged::{KvPool, KvSequence};
use crate::preparation::{ChatPreparation, room};
use crate::sampler::Sampler;
use crate::text::{CallReader, CallWatch, ChatText, Emitter, Ending, Grammar};

/// Tokens of a prompt that one step reads at most, so that a long prompt does not hold up others.
pub const PROMPT_CHUNK: usize = 128;

/// A decoder with its text side, and an adapter if it has one.
#[derive(Clone, Debug)]
pub struct ChatModel {
    decoder: Arc<Decoder>,
    text: Arc<ChatText>,
    adapter: Option<Arc<Adapter>>,
}

/// One answer in the making: the request's own place in the cache, sampler and text.
#[derive(Debug)]
pub struct Generation {
    /// Read next: the rest of the prompt, then the last token.
    pending: Vec<u32>,
    cache: Option<KvSequence>,
    /// Whose beginnings it may share: the tenant's, and of the same adapter.
    scope: Vec<u8>,
    adapter: Option<Arc<Adapter>>,
    sampler: Sampler,
    grammar: Option<Grammar>,
    /// Its own: models that share weights may differ in tokenizer and end tokens.
    side: Arc<ChatText>,
    emitter: Emitter,
    /// Where the model may call functions.
    calls: Option<CallReader>,
    /// Where it is free to, and held to schemas when it does.
    watch: Option<CallWatch>,
    alternatives: Option<usize>,
    previous: Option<u32>,
    usage: TokenUsage,
    limit: u64,
}

/// A generation's part in a step.
pub struct Turn<'a> {
    /// Whose.
    pub generation: &'a mut Generation,
    /// Tokens it may read, at least one; more than it has left is no error.
    pub tokens: usize,
}

/// What one step brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// New text; may be empty.
    pub text: String,
    /// New pieces of calls.
    pub calls: Vec<CallDelta>,
    /// The tokens of the text, where the request asked for them. Text that may yet be cut off is
    /// held back, and its tokens with it.
    pub tokens: Vec<TokenLogprob>,
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
        Self { decoder, text, adapter: None }
    }

    /// The same with an adapter over the weights, which was read for them.
    #[must_use]
    pub fn with_adapter(self, adapter: Arc<Adapter>) -> Self {
        Self { adapter: Some(adapter), ..self }
    }

    /// The adapter, if it has one.
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter.as_ref()
    }

    /// The weights.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Begins an answer; nothing is computed and little is allocated yet, and it has no place in a
    /// cache before [`Generation::take_place`].
    ///
    /// # Errors
    /// [`InferError::Request`] when the request is out of range or does not fit the context.
    pub fn start(&self, request: &ChatRequest) -> Result<Generation, InferError> {
        self.begin(ChatPreparation::of(&self.text, request, self.decoder.context())?)
    }

    /// The same, of a request that was prepared with the text side of this model.
    ///
    /// # Errors
    /// [`InferError::Request`] when its prompt does not fit the model.
    pub fn begin(&self, preparation: ChatPreparation) -> Result<Generation, InferError> {
        let ChatPreparation { side, scope, prompt, max_tokens, sampling, grammar, emitter, calls, watch, alternatives } =
            preparation;
        InferError::check_tokens(&prompt, self.decoder.vocabulary())?;
        let limit = room(&prompt, self.decoder.context())?.min(max_tokens as usize);
        Ok(Generation {
            cache: None,
            scope: scope_of(&scope, self.adapter.as_deref()),
            adapter: self.adapter.clone(),
            sampler: Sampler::new(sampling),
            grammar,
            side,
            emitter,
            calls,
            watch,
            alternatives,
            previous: None,
            usage: TokenUsage { prompt: prompt.len() as u64, completion: 0 },
            limit: limit as u64,
            pending: prompt,
        })
    }

    /// Bytes that an answer needs in a pool.
    pub fn cache_bytes(&self, generation: &Generation) -> u64 {
        self.decoder.kv_bytes(generation.positions())
    }

    /// Bytes that an answer's part of a step needs besides weights and cache.
    pub fn scratch_bytes(&self, generation: &Generation) -> u64 {
        let positions = generation.positions();
        let rows = PROMPT_CHUNK.min(positions);
        let adapter = self.adapter.as_ref().map_or(0, |adapter| adapter.scratch_bytes(rows));
        self.decoder.scratch_bytes(rows, positions) + adapter
    }

    /// Advances every answer of the batch: by a token, or by a piece of its prompt. All rows run
    /// through the network together. The answers may come from any model with the same decoder.
    ///
    /// # Errors
    /// [`InferError::Failed`] when the pass over the batch failed; none of them has advanced then.
    /// The inner result fails for an answer whose own logits are unusable.
    pub fn step(&self, batch: &mut [Turn<'_>]) -> Result<Vec<Result<Step, InferError>>, InferError> {
        let mut segments: Vec<Segment<'_>> = Vec::with_capacity(batch.len());
        let mut adapters: Vec<Option<&Adapter>> = Vec::with_capacity(batch.len());
        for turn in batch.iter_mut() {
            let reads = turn.reads();
            let Generation { pending, adapter, cache: Some(cache), .. } = &mut *turn.generation else {
                return Err(InferError::Failed("an answer has no place in the cache".to_owned()));
            };
            segments.push(Segment { tokens: &pending[..reads], cache });
            adapters.push(adapter.as_deref());
        }
        let logits = self.decoder.forward_with(&mut segments, &adapters).map_err(InferError::compute)?;
        Ok(batch
            .iter_mut()
            .zip(logits)
            .map(|(turn, logits)| {
                let reads = turn.reads();
                turn.generation.advance(reads, &logits)
            })
            .collect())
    }
}

impl Turn<'_> {
    fn reads(&self) -> usize {
        self.tokens.max(1).min(self.generation.pending.len())
    }
}

impl Generation {
    /// Takes its place in the pool of its model; what the pool still holds of the prompt is not read
    /// again. False: not enough blocks are free now.
    pub fn take_place(&mut self, pool: &KvPool) -> bool {
        let Some(cache) = pool.sequence(&self.scope, &self.pending, self.positions()) else {
            return false;
        };
        self.pending.drain(..cache.len().min(self.pending.len()));
        self.cache = Some(cache);
        true
    }

    /// Most positions that prompt and answer can take.
    pub fn positions(&self) -> usize {
        usize::try_from(self.usage.prompt + self.limit).unwrap_or(usize::MAX)
    }

    /// Tokens to read before the next one can be made; 1 once the prompt has been read.
    pub fn wants(&self) -> usize {
        self.pending.len()
    }

    /// True while the prompt is being read.
    pub fn is_reading(&self) -> bool {
        self.usage.completion == 0
    }

    /// Keeps prompt and answer within so many tokens, where the model could take more.
    ///
    /// # Errors
    /// [`InferError::Request`] when the prompt alone leaves no room.
    pub fn within(mut self, context: u64) -> Result<Self, InferError> {
        let prompt = self.usage.prompt;
        let room = context.saturating_sub(prompt);
        if room == 0 {
            return Err(InferError::Request(format!(
                "the conversation has {prompt} tokens, which leaves no room in the {context} that the model may have here; \
                 shorten it"
            )));
        }
        self.limit = self.limit.min(room);
        Ok(self)
    }

    /// Tokens used so far.
    pub fn usage(&self) -> TokenUsage {
        self.usage
    }

    /// Most tokens the answer may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    fn advance(&mut self, read: usize, logits: &[f32]) -> Result<Step, InferError> {
        self.pending.drain(..read);
        if !self.pending.is_empty() {
            return Ok(Step::default());
        }
        let token = self.pick(logits)?;
        self.usage.completion += 1;
        if self.side.ends(token) {
            return Ok(self.finish(FinishReason::Stop));
        }
        let likely = self.alternatives.map(|count| logprobs::of(&self.side, self.previous, token, logits, count));
        self.previous = Some(token);
        if self.emitter.push(&self.side, token, likely) == Ending::StopText {
            return Ok(self.told(Some(FinishReason::Stop)));
        }
        if self.completes(token)? {
            return Ok(self.finish(FinishReason::Stop));
        }
        if self.usage.completion >= self.limit {
            return Ok(self.finish(FinishReason::Length));
        }
        self.pending.push(token);
        Ok(self.told(None))
    }

    /// Takes a token into the grammar that holds, or into what waits for one. True: the answer is complete.
    fn completes(&mut self, token: u32) -> Result<bool, InferError> {
        if let Some(grammar) = &mut self.grammar {
            let is_complete = grammar.take(token)?;
            if is_complete && let Some(watch) = &mut self.watch {
                // A call is; the model is free again.
                watch.resume();
                self.grammar = None;
                return Ok(false);
            }
            return Ok(is_complete);
        }
        if let Some(watch) = &mut self.watch {
            let bytes = self.side.bytes().bytes(self.side.tokenizer(), None, token);
            self.grammar = watch.take(&bytes);
        }
        Ok(false)
    }

    fn pick(&mut self, logits: &[f32]) -> Result<u32, InferError> {
        if let Some(grammar) = &mut self.grammar {
            let mut allowed = logits.to_vec();
            grammar.mask(&mut allowed)?;
            return self.sampler.pick(&allowed);
        }
        let mut token = self.sampler.pick(logits)?;
        let Some(watch) = &self.watch else { return Ok(token) };
        let refuses = |token| watch.refuses(&self.side.bytes().bytes(self.side.tokenizer(), None, token));
        let mut allowed = Vec::new();
        // Ends in any case: each time there is one less.
        while refuses(token) {
            if allowed.is_empty() {
                allowed = logits.to_vec();
            }
            if let Some(logit) = allowed.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
            token = self.sampler.pick(&allowed)?;
        }
        Ok(token)
    }

    /// Ends with what was held back, unless that turns out to be a stop text.
    fn finish(&mut self, reason: FinishReason) -> Step {
        let reason = match self.emitter.finish() {
            Ending::StopText => FinishReason::Stop,
            Ending::None => reason,
        };
        self.told(Some(reason))
    }

    fn told(&mut self, reason: Option<FinishReason>) -> Step {
        let (text, tokens) = self.emitter.take();
        let finish = |reason| Finish { reason, usage: self.usage };
        let Some(reader) = &mut self.calls else {
            return Step { text, calls: Vec::new(), tokens, finish: reason.map(finish) };
        };
        let mut said = reader.read(&text);
        let reason = if reader.is_done() { Some(FinishReason::Stop) } else { reason };
        if reason.is_some() {
            said.append(reader.finish());
        }
        // A caller that is asked for results must have all it takes to make them.
        let reason = reason.map(|reason| match reason {
            FinishReason::Stop if reader.has_whole_calls() => FinishReason::ToolCalls,
            other => other,
        });
        Step { text: said.text, calls: said.calls, tokens, finish: reason.map(finish) }
    }
}

/// Keys and values that were made with an adapter are not those of another, or of none. The byte between tenant and digest is in no
/// tenant's name.
fn scope_of(tenant: &str, adapter: Option<&Adapter>) -> Vec<u8> {
    let mut scope = tenant.as_bytes().to_vec();
    if let Some(adapter) = adapter {
        scope.push(0);
        scope.extend(adapter.digest());
    }
    scope
}
