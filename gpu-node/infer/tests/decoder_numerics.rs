//! The decoder against logits that transformers computed, in every way of feeding tokens.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{decoder, reference, row_difference, source, worst_difference};
use provost_gpu_infer::Segment;

const TOLERANCE: f32 = 1e-4;
const MODELS: [(&str, &str); 2] = [("tiny-chat", "llama"), ("tiny-qwen3", "qwen3")];

#[test]
fn a_whole_prompt_agrees() {
    for (model, name) in MODELS {
        let decoder = decoder(&source(model));
        let (ids, expected) = reference(name);
        let mut cache = decoder.cache(ids.len());
        let segment = Segment { tokens: &ids, cache: &mut cache };
        let logits = decoder.forward_all(segment).unwrap();
        let worst = worst_difference(&logits, &expected);
        assert!(worst < TOLERANCE, "{name}: {worst}");
    }
}

#[test]
fn token_by_token_and_chunk_by_chunk_agree() {
    for (model, name) in MODELS {
        let decoder = decoder(&source(model));
        let (ids, expected) = reference(name);
        for chunk in [1, 3, 5] {
            let mut cache = decoder.cache(ids.len());
            let mut logits = Vec::new();
            for tokens in ids.chunks(chunk) {
                let segment = Segment { tokens, cache: &mut cache };
                logits.extend(decoder.forward_all(segment).unwrap());
            }
            let worst = worst_difference(&logits, &expected);
            assert!(worst < TOLERANCE, "{name} in chunks of {chunk}: {worst}");
        }
    }
}

/// Requests of different lengths and phases in one pass, each with its own cache.
#[test]
fn a_ragged_batch_agrees_and_requests_do_not_see_each_other() {
    for (model, name) in MODELS {
        let decoder = decoder(&source(model));
        let (ids, expected) = reference(name);
        let other: Vec<u32> = ids.iter().rev().copied().collect();
        let mut whole = decoder.cache(ids.len());
        let mut stepped = decoder.cache(ids.len());
        let mut stranger = decoder.cache(64);
        for (index, token) in ids.iter().enumerate() {
            let tokens = [*token];
            let mut batch = vec![
                Segment { tokens: &other, cache: &mut stranger },
                Segment { tokens: &tokens, cache: &mut stepped },
            ];
            if index == 3 {
                batch.push(Segment { tokens: &ids, cache: &mut whole });
            }
            let logits = decoder.forward(&mut batch).unwrap();
            let worst = row_difference(&logits[1], &expected[index]);
            assert!(worst < TOLERANCE, "{name} step {index}: {worst}");
            if index == 3 {
                let worst = row_difference(&logits[2], &expected[ids.len() - 1]);
                assert!(worst < TOLERANCE, "{name} whole: {worst}");
            }
        }
    }
}

#[test]
fn a_full_cache_and_an_unknown_token_are_errors_that_change_nothing() {
    let decoder = decoder(&source("tiny-chat"));
    let (ids, expected) = reference("llama");
    let mut cache = decoder.cache(ids.len());
    let (first, rest) = ids.split_at(4);
    decoder.forward_all(Segment { tokens: first, cache: &mut cache }).unwrap();

    let unknown = [256u32];
    assert!(decoder.forward_all(Segment { tokens: &unknown, cache: &mut cache }).is_err());
    let many = [1u32; 9];
    assert!(decoder.forward_all(Segment { tokens: &many, cache: &mut cache }).is_err());
    assert!(decoder.forward_all(Segment { tokens: &[], cache: &mut cache }).is_err());

    let logits = decoder.forward_all(Segment { tokens: rest, cache: &mut cache }).unwrap();
    assert!(worst_difference(&logits, &expected[4..]) < TOLERANCE);
}

/// The cache grows by copying; what was in it must survive.
#[test]
fn a_long_context_is_the_same_in_steps_as_at_once() {
    let decoder = decoder(&source("tiny-chat"));
    let tokens: Vec<u32> = (0..300u32).map(|i| (i * 37 + 11) % 256).collect();
    let mut at_once = decoder.cache(tokens.len());
    let expected = decoder.forward(&mut [Segment { tokens: &tokens, cache: &mut at_once }]).unwrap();
    let mut stepped = decoder.cache(tokens.len());
    let mut last = Vec::new();
    for chunk in tokens.chunks(7) {
        last = decoder.forward(&mut [Segment { tokens: chunk, cache: &mut stepped }]).unwrap();
    }
    assert!(worst_difference(&last, &expected) < TOLERANCE);
}
