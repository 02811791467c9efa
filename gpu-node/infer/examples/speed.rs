//! How fast a chat model reads and writes here, with nothing around it: no node, no network, one answer at a time.
//!
//! `speed MODEL PROMPT ANSWER ROUNDS`: a model on disk, tokens of each prompt (as characters: for a model whose tokens are
//! single ones), tokens of each answer. One JSON object a round on standard output. The first answer is not told: weights are put
//! in order for the processor when they are first used. The threads are those of `RAYON_NUM_THREADS`.
//! `scripts/compare_llama.sh` uses it.
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::error::Error;
use std::path::Path;

use provost_gpu_infer::answer_speeds;

/// The allocator that `provost` runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompt, answer, rounds] = arguments.as_slice() else {
        return Err("speed MODEL PROMPT ANSWER ROUNDS".into());
    };
    for told in answer_speeds(Path::new(model), prompt.parse()?, answer.parse()?, rounds.parse()?)? {
        println!(
            "{{\"prompt\":{},\"prefill_s\":{:.6},\"decoded\":{},\"decode_s\":{:.6}}}",
            told.prompt,
            told.prefill.as_secs_f64(),
            told.decoded,
            told.decode.as_secs_f64()
        );
    }
    Ok(())
}
