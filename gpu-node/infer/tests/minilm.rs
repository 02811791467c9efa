//! MiniLM against embeddings that transformers computed.
//!
//! The model is not part of the repository: `scripts/fetch_minilm.py` puts it into the cache.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device};
use common::{fixtures, worst_difference};
use provost_gpu_infer::{EmbedJob, EmbedPart, EmbeddingModel, EmbeddingText, InferError, ModelSource, Network};
use provost_types::{EmbedResponse, ModelKind};

const SENTENCES: [&str; 3] =
    ["The cluster evicts the least recently used model.", "VRAM is managed with leases.", "A cat sleeps on the sofa."];

/// The model, or None with the reason printed; where CI is set its absence is a failure.
fn minilm() -> Option<(EmbeddingModel, Arc<EmbeddingText>)> {
    let models = std::env::var_os("PROVOST_TEST_MODELS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/provost/models"),
        PathBuf::from,
    );
    let path = models.join("all-minilm-l6-v2");
    if !path.join("model.safetensors").is_file() {
        let reason = format!("skipped: no MiniLM in {}; run scripts/fetch_minilm.py", path.display());
        assert!(std::env::var("CI").is_err(), "{reason}");
        eprintln!("{reason}");
        return None;
    }
    let source = ModelSource::open("all-minilm-l6-v2", &path).unwrap();
    assert_eq!(source.info().kind, ModelKind::Embedding);
    assert_eq!(source.info().dimensions, 384);
    assert_eq!(source.info().context_tokens, 512);
    let Network::Encoder(encoder) = source.load_network_on(&common::device(), source.digest().unwrap()).unwrap() else {
        panic!("MiniLM is an encoder");
    };
    let text = Arc::new(source.load_embedding_text().unwrap());
    Some((EmbeddingModel::new(encoder, Arc::clone(&text)), text))
}

fn embed(model: &EmbeddingModel, inputs: &[String]) -> EmbedResponse {
    let mut job = model.start(inputs).unwrap();
    loop {
        if let Some(response) = step(model, &mut job, 3) {
            return response;
        }
    }
}

fn step(model: &EmbeddingModel, job: &mut EmbedJob, texts: usize) -> Option<EmbedResponse> {
    model.step(&mut [EmbedPart { job, texts }]).unwrap().remove(0).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn embeddings_agree_with_transformers_together_and_alone() {
    let Some((model, text)) = minilm() else { return };
    let path = fixtures().join("minilm.ref.safetensors");
    let reference = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let expected: Vec<Vec<f32>> = reference["emb"].to_vec2().unwrap();
    let ids: Vec<Vec<u32>> = reference["ids"].to_dtype(DType::U32).unwrap().to_vec2().unwrap();
    let mask: Vec<Vec<u32>> = reference["mask"].to_dtype(DType::U32).unwrap().to_vec2().unwrap();

    let inputs: Vec<String> = SENTENCES.iter().map(|s| (*s).to_owned()).collect();
    for (tokens, (ids, mask)) in text.encode(&inputs, 512).unwrap().iter().zip(ids.iter().zip(&mask)) {
        let length = mask.iter().sum::<u32>() as usize;
        assert_eq!(tokens, &ids[..length]);
    }
    let together = embed(&model, &inputs);
    let worst = worst_difference(&together.vectors, &expected);
    assert!(worst < 1e-4, "{worst}");
    assert_eq!(together.usage.prompt, u64::from(mask.iter().flatten().sum::<u32>()));

    let alone: Vec<Vec<f32>> =
        inputs.iter().map(|input| embed(&model, std::slice::from_ref(input)).vectors.remove(0)).collect();
    let worst = worst_difference(&alone, &together.vectors);
    assert!(worst < 1e-5, "batch differs from single by {worst}");
    for vector in &alone {
        assert!((dot(vector, vector) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn meaning_is_nearer_than_words() {
    let Some((model, _)) = minilm() else { return };
    let inputs: Vec<String> =
        ["How do I reset my password?", "I forgot my login credentials.", "The recipe needs two eggs."]
            .iter()
            .map(|s| (*s).to_owned())
            .collect();
    let vectors = embed(&model, &inputs).vectors;
    assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]) + 0.2);
}

#[test]
fn many_texts_take_several_steps_and_keep_their_order() {
    let Some((model, _)) = minilm() else { return };
    let inputs: Vec<String> = (0..12).map(|i| format!("{} {}", SENTENCES[i % 3], "and so on ".repeat(i * 6))).collect();
    let mut job = model.start(&inputs).unwrap();
    let mut steps = 1;
    let response = loop {
        if let Some(response) = step(&model, &mut job, 5) {
            break response;
        }
        steps += 1;
    };
    assert_eq!(steps, 3, "five, five, two");
    let fifth = embed(&model, &inputs[5..6]).vectors;
    assert!(worst_difference(&response.vectors[5..6], &fifth) < 1e-5);
}

#[test]
fn jobs_in_one_batch_answer_as_each_alone() {
    let Some((model, _)) = minilm() else { return };
    let texts = |from: usize, count: usize| -> Vec<String> {
        (from..from + count).map(|i| format!("{} {i}", SENTENCES[i % 3])).collect()
    };
    let (first, second) = (texts(0, 5), texts(5, 2));
    let (mut one, mut two) = (model.start(&first).unwrap(), model.start(&second).unwrap());
    let mut parts = [EmbedPart { job: &mut one, texts: 3 }, EmbedPart { job: &mut two, texts: 9 }];
    let mut outcomes = model.step(&mut parts).unwrap();
    let second_answer = outcomes.remove(1).unwrap().unwrap();
    assert!(outcomes.remove(0).unwrap().is_none(), "two are left");
    let first_answer = step(&model, &mut one, 2).unwrap();
    for (answer, inputs) in [(first_answer, first), (second_answer, second)] {
        assert!(worst_difference(&answer.vectors, &embed(&model, &inputs).vectors) < 1e-5);
    }
}

#[test]
fn a_text_that_is_too_long_is_refused_not_cut() {
    let Some((model, _)) = minilm() else { return };
    let inputs = vec!["fits".to_owned(), "word ".repeat(600)];
    match model.start(&inputs) {
        Err(InferError::Request(text)) => assert!(text.contains("input 1 has 602 tokens"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(model.start(&[]).is_err());
}
