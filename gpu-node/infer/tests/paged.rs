//! Keys and values in blocks: the same numbers as in one piece, shared beginnings, nothing leaked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{chat_model, decoder, pool, reference, request, row_difference, source, step, worst_difference};
use proptest::prelude::*;
use provost_gpu_infer::{
    BLOCK_POSITIONS, ChatModel, Decoder, Generation, KeyValues, KvPool, KvSequence, Segment, Turn,
};
use provost_types::ChatRequest;

const TOLERANCE: f32 = 1e-4;
const MODELS: [(&str, &str); 2] = [("tiny-chat", "llama"), ("tiny-qwen3", "qwen3")];

/// A pool of this many blocks.
fn blocks(decoder: &Decoder, count: usize) -> KvPool {
    decoder.kv_pool(decoder.kv_bytes(count * BLOCK_POSITIONS)).unwrap()
}

/// A pool whose free blocks never lie in a row, and who holds the others.
fn scattered(decoder: &Decoder, count: usize) -> (KvPool, Vec<KvSequence>) {
    let pool = blocks(decoder, 2 * count);
    let all: Vec<KvSequence> = (0..2 * count).map(|_| pool.sequence(b"other", &[], BLOCK_POSITIONS).unwrap()).collect();
    let held = all.into_iter().enumerate().filter(|(index, _)| index % 2 == 0).map(|(_, held)| held).collect();
    (pool, held)
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + 11) % 250).collect()
}

fn last_logits(decoder: &Decoder, cache: &mut dyn KeyValues, tokens: &[u32]) -> Vec<f32> {
    decoder.forward(&mut [Segment { tokens, cache }]).unwrap().remove(0)
}

#[test]
fn blocks_in_a_row_and_scattered_ones_agree_with_transformers() {
    for (model, name) in MODELS {
        let decoder = decoder(&source(model));
        let (ids, expected) = reference(name);
        let (rows, (apart, _others)) = (blocks(&decoder, 4), scattered(&decoder, 4));
        for (pool, chunk) in [(&rows, ids.len()), (&rows, 1), (&apart, ids.len()), (&apart, 3), (&apart, 1)] {
            let mut cache = pool.sequence(b"", &[], 4 * BLOCK_POSITIONS).unwrap();
            let mut logits = Vec::new();
            for tokens in ids.chunks(chunk) {
                logits.extend(decoder.forward_all(Segment { tokens, cache: &mut cache }).unwrap());
            }
            let worst = worst_difference(&logits, &expected);
            assert!(worst < TOLERANCE, "{name} in chunks of {chunk}: {worst}");
        }
    }
}

#[test]
fn a_long_sequence_in_scattered_blocks_is_the_same_as_in_one_piece() {
    for (model, name) in MODELS {
        let decoder = decoder(&source(model));
        let tokens = tokens(300);
        let (pool, _others) = scattered(&decoder, 19);
        let mut paged = pool.sequence(b"", &tokens, 300).unwrap();
        let mut plain = decoder.cache(300);
        for chunk in tokens.chunks(23) {
            let expected = last_logits(&decoder, &mut plain, chunk);
            let worst = row_difference(&last_logits(&decoder, &mut paged, chunk), &expected);
            assert!(worst < TOLERANCE, "{name} at {}: {worst}", paged.len());
        }
    }
}

#[test]
fn a_beginning_that_is_known_is_not_computed_again_and_changes_nothing() {
    for (model, name) in MODELS {
        let decoder = decoder(&source(model));
        let prompt = tokens(100);
        let pool = blocks(&decoder, 40);
        let mut first = pool.sequence(b"a", &prompt, 120).unwrap();
        let expected = last_logits(&decoder, &mut first, &prompt);
        // While its holder is there, and after.
        for gone in [false, true] {
            let mut again = pool.sequence(b"a", &prompt, 120).unwrap();
            assert_eq!(again.len(), 96, "six full blocks");
            let worst = row_difference(&last_logits(&decoder, &mut again, &prompt[96..]), &expected);
            assert!(worst < TOLERANCE, "{name} gone {gone}: {worst}");
            // It goes on in blocks of its own; the first one's do not change.
            last_logits(&decoder, &mut again, &[1, 2, 3]);
        }
        let other: Vec<u32> = prompt[..40].iter().copied().chain([7; 60]).collect();
        let mut branch = pool.sequence(b"a", &other, 100).unwrap();
        assert_eq!(branch.len(), 32);
        let mut plain = decoder.cache(100);
        let expected_branch = last_logits(&decoder, &mut plain, &other);
        assert!(row_difference(&last_logits(&decoder, &mut branch, &other[32..]), &expected_branch) < TOLERANCE);
        drop(branch);
        let one = [9u32];
        let mut plain = decoder.cache(101);
        last_logits(&decoder, &mut plain, &prompt);
        let expected = last_logits(&decoder, &mut plain, &one);
        assert!(row_difference(&last_logits(&decoder, &mut first, &one), &expected) < TOLERANCE);
        assert_eq!(pool.sequence(b"b", &prompt, 100).unwrap().len(), 0, "another scope sees nothing");
        // The last token is always computed: its logits are what one goes on from.
        assert_eq!(pool.sequence(b"a", &prompt[..96], 100).unwrap().len(), 80);
    }
}

#[test]
fn a_pool_that_is_full_says_so_and_blocks_come_back() {
    let decoder = decoder(&source("tiny-chat"));
    let pool = blocks(&decoder, 4);
    assert!(pool.could_hold(64) && !pool.could_hold(65));
    let first = pool.sequence(b"", &[], 40).unwrap();
    assert!(pool.sequence(b"", &[], 17).is_none());
    let second = pool.sequence(b"", &[], 16).unwrap();
    assert_eq!(pool.usage().held, pool.usage().capacity);
    drop(first);
    assert_eq!(pool.usage().held * 4, pool.usage().capacity);
    drop(second);
    assert!(pool.is_unused());
}

#[test]
fn a_failed_pass_leaves_a_sequence_as_it_was() {
    let decoder = decoder(&source("tiny-chat"));
    let (ids, expected) = reference("llama");
    let (pool, _others) = scattered(&decoder, 2);
    let mut cache = pool.sequence(b"", &[], ids.len()).unwrap();
    let (first, rest) = ids.split_at(4);
    decoder.forward_all(Segment { tokens: first, cache: &mut cache }).unwrap();
    let many = [1u32; 40];
    assert!(decoder.forward_all(Segment { tokens: &many, cache: &mut cache }).is_err());
    assert!(decoder.forward_all(Segment { tokens: &[999], cache: &mut cache }).is_err());
    let logits = decoder.forward_all(Segment { tokens: rest, cache: &mut cache }).unwrap();
    assert!(worst_difference(&logits, &expected[4..]) < TOLERANCE);
}

/// An answer step by step with nobody else, in a cache that nobody shares.
fn alone(model: &ChatModel, request: &ChatRequest) -> String {
    let mut generation = common::started(model, request);
    let mut text = String::new();
    loop {
        let step = step(model, &mut generation);
        text.push_str(&step.text);
        if step.finish.is_some() {
            return text;
        }
    }
}

#[test]
fn an_answer_without_a_place_is_an_error() {
    let model = chat_model(&source("tiny-chat"));
    let mut generation = model.start(&request("hi", 3)).unwrap();
    assert!(model.step(&mut [Turn { generation: &mut generation, tokens: 1 }]).is_err());
}

#[test]
fn a_second_turn_of_a_conversation_reads_only_what_is_new() {
    let model = chat_model(&source("tiny-chat"));
    let pool = pool(model.decoder());
    let long = request(&"the same long question. ".repeat(6), 20);
    let expected = alone(&model, &long);
    for turn in 0..2 {
        let mut generation = model.start(&long).unwrap();
        let prompt = generation.wants();
        assert!(generation.take_place(&pool));
        let read = generation.wants();
        assert_eq!(read < prompt / 4, turn == 1, "{read} of {prompt}");
        let mut text = String::new();
        loop {
            let step = step(&model, &mut generation);
            text.push_str(&step.text);
            if let Some(finish) = step.finish {
                assert_eq!(finish.usage.prompt, prompt as u64, "what is reused counts as read");
                break;
            }
        }
        assert_eq!(text, expected);
    }
    assert!(pool.is_unused());
    assert!(pool.usage().idle > 0);
}

struct Guest {
    request: ChatRequest,
    generation: Option<Generation>,
    text: String,
    left: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Requests come, wait for blocks, are cancelled; pieces of prompts and single tokens run in one
    /// pass. Each answer is what it is alone, and in the end no block is held.
    #[test]
    fn continuous_batches_answer_as_each_alone(
        plan in proptest::collection::vec((0usize..6, 1usize..40, 0u64..3, any::<bool>()), 2..7),
        chunk in 1usize..40,
        leaver in 0usize..7,
    ) {
        let name = if chunk.is_multiple_of(2) { "tiny-chat" } else { "tiny-qwen3" };
        let model = chat_model(&source(name));
        let pool = blocks(model.decoder(), 14);
        let mut guests: Vec<Guest> = plan
            .iter()
            .map(|(kind, length, seed, greedy)| {
                let text = format!("{} {}", "a shared beginning, ".repeat(*kind), "x".repeat(*length));
                let temperature = if *greedy { 0.0 } else { 0.9 };
                let request = ChatRequest { temperature, seed: Some(*seed), ..request(&text, 12) };
                Guest { request, generation: None, text: String::new(), left: false }
            })
            .collect();
        let expected: Vec<String> = guests.iter().map(|guest| alone(&model, &guest.request)).collect();
        for turn in 0..2000 {
            for guest in guests.iter_mut().filter(|guest| !guest.left && guest.generation.is_none()) {
                let mut generation = model.start(&guest.request).unwrap();
                if generation.take_place(&pool) {
                    guest.generation = Some(generation);
                }
            }
            if turn == 3 && let Some(guest) = guests.get_mut(leaver) {
                (guest.generation, guest.left) = (None, true);
            }
            let mut running: Vec<&mut Guest> = guests.iter_mut().filter(|guest| guest.generation.is_some()).collect();
            if running.is_empty() {
                break;
            }
            let mut turns: Vec<Turn<'_>> = running
                .iter_mut()
                .filter_map(|guest| guest.generation.as_mut())
                .map(|generation| Turn { generation, tokens: chunk })
                .collect();
            let steps = model.step(&mut turns).unwrap();
            for (guest, step) in running.into_iter().zip(steps) {
                let step = step.unwrap();
                guest.text.push_str(&step.text);
                if step.finish.is_some() {
                    (guest.generation, guest.left) = (None, true);
                }
            }
        }
        prop_assert!(pool.is_unused());
        for (index, (guest, expected)) in guests.iter().zip(&expected).enumerate() {
            prop_assert!(guest.left);
            let expected = if index == leaver { &expected[..guest.text.len()] } else { expected };
            prop_assert_eq!(&guest.text, expected);
        }
    }
}
