//! How fast a chat model reads and writes here, with nothing around it: no node, no network, one answer at a time.
//!
//! `speed MODEL PROMPT ANSWER ROUNDS`: a model on disk, tokens of each prompt (as characters: for a model whose tokens are
//! single ones), tokens of each answer. One JSON object a round on standard output. The first answer is not told: weights are put
//! in order for the processor when they are first used. The threads are those of `RAYON_NUM_THREADS`.
//! `scripts/compare_llama.sh` uses it.
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use provost_gpu_infer::{ChatModel, Generation, KvPool, ModelSource, Network, PROMPT_CHUNK, Turn};
use provost_types::{ChatMessage, ChatRequest};

/// The allocator that `provost` runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompt, answer, rounds] = arguments.as_slice() else {
        return Err("speed MODEL PROMPT ANSWER ROUNDS".into());
    };
    let (prompt, answer, rounds): (usize, u32, u32) = (prompt.parse()?, answer.parse()?, rounds.parse()?);
    let source = ModelSource::open("speed", Path::new(model))?;
    let Network::Decoder(decoder) = source.load_network()? else {
        return Err("the model is no chat model".into());
    };
    let pool = decoder.kv_pool(decoder.kv_bytes(2 * (prompt + answer as usize)))?;
    let model = ChatModel::new(decoder, Arc::new(source.load_chat_text()?));
    for round in 0..=rounds {
        let told = once(&model, &pool, &request(letters(prompt, round), answer))?;
        if round > 0 {
            println!("{told}");
        }
    }
    Ok(())
}

/// One answer: its tokens, and the seconds until the first and from the first to the last.
fn once(model: &ChatModel, pool: &KvPool, request: &ChatRequest) -> Result<String, Box<dyn Error>> {
    let mut generation = model.start(request)?;
    if !generation.take_place(pool) {
        return Err("the cache has no room".into());
    }
    let began = Instant::now();
    let mut ended = false;
    while generation.is_reading() {
        ended = step(model, &mut generation)?;
    }
    let first = began.elapsed().as_secs_f64();
    while !ended {
        ended = step(model, &mut generation)?;
    }
    let rest = began.elapsed().as_secs_f64() - first;
    let usage = generation.usage();
    Ok(format!(
        "{{\"prompt\":{},\"prefill_s\":{first:.6},\"decoded\":{},\"decode_s\":{rest:.6}}}",
        usage.prompt,
        usage.completion.saturating_sub(1)
    ))
}

fn step(model: &ChatModel, generation: &mut Generation) -> Result<bool, Box<dyn Error>> {
    let mut turns = [Turn { generation, tokens: PROMPT_CHUNK }];
    let step = model.step(&mut turns)?.pop().ok_or("a step without a result")??;
    Ok(step.finish.is_some())
}

fn request(text: String, max_tokens: u32) -> ChatRequest {
    ChatRequest {
        tenant: String::new(),
        model: String::new(),
        messages: vec![ChatMessage::new("user", text)],
        max_tokens,
        temperature: 0.0,
        top_p: 1.0,
        seed: None,
        stop: Vec::new(),
        logprobs: None,
        schema: None,
        tools: None,
        prompt: None,
    }
}

/// Letters that begin otherwise in each round, so that nothing of one prompt is kept for the next.
fn letters(count: usize, round: u32) -> String {
    let mut state = u64::from(round) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..count).map(|_| next()).collect()
}
