//! How fast a chat model reads and writes on the processor, with nothing around it: no node, no network, one answer at a time.
//!
//! The threads are those of `RAYON_NUM_THREADS`, as they were when something was first computed in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_types::ChatRequest;

use crate::error::InferError;
use crate::generation::{ChatModel, Generation, PROMPT_CHUNK, Turn};
use crate::network::Network;
use crate::paged::KvPool;
use crate::source::ModelSource;

/// What errors call the model.
const NAME: &str = "speed";

/// What one answer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSpeed {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// From the beginning until the answer's first token.
    pub prefill: Duration,
    /// Tokens of the answer after the first.
    pub decoded: u64,
    /// From the first token to the last.
    pub decode: Duration,
}

/// What so many answers of a model on disk take, greedily, each to another prompt: `prompt` tokens of it, as letters (for a model
/// whose tokens are single ones; its template comes on top), and `answer` tokens at most. One answer before them is not told:
/// weights are put in order for the processor when they are first used.
///
/// # Errors
/// When the model cannot be read, is no chat model, or fails; [`InferError::Request`] when its context has no room for so many tokens.
pub fn answer_speeds(path: &Path, prompt: usize, answer: u32, rounds: u32) -> Result<Vec<AnswerSpeed>, InferError> {
    let source = ModelSource::open(NAME, path)?;
    let Network::Decoder(decoder) = source.load_network()? else {
        let cause = "it is no chat model, and only these write tokens".to_owned();
        return Err(InferError::Unsupported { model: NAME.to_owned(), cause });
    };
    // One for all answers, as nodes have it; the prompts differ from their beginning on, so nothing is kept from one to the next.
    let pool = decoder.kv_pool(decoder.kv_bytes(2 * (prompt + answer as usize)))?;
    let model = ChatModel::new(decoder, Arc::new(source.load_chat_text()?));
    let mut told = Vec::new();
    for round in 0..=rounds {
        let generation = model.start(&ChatRequest::greedy("", "", letters(prompt, round), answer))?;
        let speed = once(&model, &pool, generation)?;
        if round > 0 {
            told.push(speed);
        }
    }
    Ok(told)
}

fn once(model: &ChatModel, pool: &KvPool, mut generation: Generation) -> Result<AnswerSpeed, InferError> {
    if !generation.take_place(pool) {
        return Err(InferError::Failed("the cache has no room".to_owned()));
    }
    let began = Instant::now();
    let mut ended = false;
    while generation.is_reading() {
        ended = step(model, &mut generation)?;
    }
    let prefill = began.elapsed();
    while !ended {
        ended = step(model, &mut generation)?;
    }
    let usage = generation.usage();
    Ok(AnswerSpeed {
        prompt: usage.prompt,
        prefill,
        decoded: usage.completion.saturating_sub(1),
        decode: began.elapsed().saturating_sub(prefill),
    })
}

/// True: that was the last one.
fn step(model: &ChatModel, generation: &mut Generation) -> Result<bool, InferError> {
    let mut turns = [Turn { generation, tokens: PROMPT_CHUNK }];
    let step = model.step(&mut turns)?.pop();
    Ok(step.ok_or_else(|| InferError::Failed("a step without a result".to_owned()))??.finish.is_some())
}

/// Letters that are others in each round.
fn letters(count: usize, round: u32) -> String {
    let mut state = u64::from(round) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..count).map(|_| next()).collect()
}
