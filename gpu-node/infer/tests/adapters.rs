//! Adapters over a shared base: the same numbers as merged weights, in any batch; nothing passes between them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::adapters::{TARGETS, config, tensors, write, write_merged};
use common::{chat_model, decoder, pool, request, row_difference, source};
use provost_gpu_infer::{Adapter, ChatModel, Decoder, ModelSource, Segment, Turn};
use serde_json::json;

const TOLERANCE: f32 = 1e-4;
const MODELS: [&str; 2] = ["tiny-chat", "tiny-qwen3"];

/// A fixture with the adapter of a seed over it.
fn adapted(fixture: &str, folder: &Path, seed: usize) -> ModelSource {
    let directory = folder.join(format!("{fixture}-{seed}"));
    write(&directory, &config(), &tensors(seed));
    source(fixture).adapted("tuned", &directory).unwrap()
}

fn adapter(source: &ModelSource) -> Arc<Adapter> {
    Arc::new(source.load_adapter_on(&common::device()).unwrap().expect("it has one"))
}

fn tokens(count: u32, salt: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + salt) % 250).collect()
}

/// The logits after the last token of a prompt that is read in chunks.
fn last(decoder: &Decoder, adapter: Option<&Adapter>, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let mut cache = decoder.cache(tokens.len());
    let mut logits = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let mut segments = [Segment { tokens, cache: &mut cache }];
        logits = decoder.forward_with(&mut segments, &[adapter]).unwrap().remove(0);
    }
    logits
}

#[test]
fn an_adapter_whose_b_is_zero_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        let decoder = decoder(&source(model));
        let nothing = adapter(&adapted(model, folder.path(), 0));
        let prompt = tokens(50, 11);
        for chunk in [50, 7, 1] {
            let (with, without) =
                (last(&decoder, Some(&nothing), &prompt, chunk), last(&decoder, None, &prompt, chunk));
            assert_eq!(with, without, "{model} in chunks of {chunk}");
        }
    }
}

#[test]
fn an_adapter_is_the_same_as_merged_weights() {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        let base = decoder(&source(model));
        let adapter = adapter(&adapted(model, folder.path(), 1));
        let merged = folder.path().join(format!("{model}-merged"));
        write_merged(model, &tensors(1), &merged);
        let merged = decoder(&ModelSource::open("merged", &merged).unwrap());
        let prompt = tokens(50, 11);
        let expected = last(&merged, None, &prompt, 50);
        assert!(
            row_difference(&expected, &last(&base, None, &prompt, 50)) > 100.0 * TOLERANCE,
            "it changes the answer"
        );
        for chunk in [50, 7, 1] {
            let worst = row_difference(&last(&base, Some(&adapter), &prompt, chunk), &expected);
            assert!(worst < TOLERANCE, "{model} in chunks of {chunk}: {worst}");
        }
    }
}

#[test]
fn rows_of_a_batch_have_their_own_adapters_or_none() {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        let decoder = decoder(&source(model));
        let (one, two) = (adapter(&adapted(model, folder.path(), 1)), adapter(&adapted(model, folder.path(), 2)));
        let prompts: Vec<Vec<u32>> = [(20, 1), (1, 2), (33, 3), (7, 4), (2, 5)].map(|(n, salt)| tokens(n, salt)).into();
        let adapters = [Some(&*one), None, Some(&*two), Some(&*one), None];
        let mut caches: Vec<_> = prompts.iter().map(|prompt| decoder.cache(prompt.len() + 1)).collect();
        let mut segments: Vec<Segment<'_>> =
            prompts.iter().zip(&mut caches).map(|(tokens, cache)| Segment { tokens, cache }).collect();
        let together = decoder.forward_with(&mut segments, &adapters).unwrap();
        for (at, (prompt, logits)) in prompts.iter().zip(&together).enumerate() {
            let worst = row_difference(logits, &last(&decoder, adapters[at], prompt, prompt.len()));
            assert!(worst < TOLERANCE, "{model} segment {at}: {worst}");
        }
    }
}

/// A whole answer, whose places are in a pool that it shares with others.
fn answers(models: &[&ChatModel], text: &str) -> Vec<String> {
    let shared = pool(models[0].decoder());
    let mut generations: Vec<_> = models.iter().map(|model| model.start(&request(text, 12)).unwrap()).collect();
    let mut texts = vec![String::new(); models.len()];
    let mut running: Vec<usize> = (0..models.len()).collect();
    generations.iter_mut().for_each(|generation| assert!(generation.take_place(&shared)));
    while !running.is_empty() {
        let mut turns: Vec<Turn<'_>> = generations
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| running.contains(at))
            .map(|(_, generation)| Turn { generation, tokens: usize::MAX })
            .collect();
        let steps = models[0].step(&mut turns).unwrap();
        let ended: Vec<usize> = running
            .iter()
            .zip(steps)
            .filter_map(|(at, step)| {
                let step = step.unwrap();
                texts[*at].push_str(&step.text);
                step.finish.map(|_| *at)
            })
            .collect();
        running.retain(|at| !ended.contains(at));
    }
    texts
}

#[test]
fn answers_of_one_batch_are_those_of_each_model_alone() {
    let folder = tempfile::tempdir().unwrap();
    let base = chat_model(&source("tiny-chat"));
    let tuned: Vec<ChatModel> =
        [1, 2].map(|seed| base.clone().with_adapter(adapter(&adapted("tiny-chat", folder.path(), seed)))).into();
    let models = [&base, &tuned[0], &tuned[1], &base];
    let together = answers(&models, "what is it?");
    for (at, model) in models.iter().enumerate() {
        assert_eq!(together[at], answers(&[*model], "what is it?")[0], "{at}");
    }
    assert!(together[0] != together[1] && together[1] != together[2], "they say different things");
}

#[test]
fn beginnings_are_not_shared_between_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let base = chat_model(&source("tiny-chat"));
    let tuned = base.clone().with_adapter(adapter(&adapted("tiny-chat", folder.path(), 1)));
    let shared = pool(base.decoder());
    let text = "a long beginning, so that some blocks of the cache are full and could be found again by others";
    let read = |model: &ChatModel| {
        let mut generation = model.start(&request(text, 4)).unwrap();
        let before = generation.wants();
        assert!(generation.take_place(&shared));
        let found = before - generation.wants();
        model.step(&mut [Turn { generation: &mut generation, tokens: usize::MAX }]).unwrap().remove(0).unwrap();
        found
    };
    assert_eq!(read(&base), 0);
    assert_eq!(read(&tuned), 0, "made by other weights");
    assert!(read(&base) > 0 && read(&tuned) > 0, "each finds its own");
}

#[test]
fn what_does_not_fit_the_base_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("adapter");
    let refused = |says: &str| {
        let error = match source("tiny-chat").adapted("tuned", &directory) {
            Ok(source) => source.load_adapter().expect_err(says).to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.starts_with("PV-MODEL-") && error.contains("`tuned`") && error.contains(says), "{says}: {error}");
        assert!(!error.contains(folder.path().to_str().unwrap()), "no paths: {error}");
    };
    refused("adapter_config.json");

    write(&directory, &config(), &tensors(1));
    std::fs::remove_file(directory.join("adapter_model.safetensors")).unwrap();
    refused("adapter_model.safetensors");

    let mut wrong = config();
    wrong["r"] = json!(8);
    write(&directory, &wrong, &tensors(1));
    refused("has shape [4, 64], the configuration calls for [8, 64]");

    let mut fewer = config();
    fewer["target_modules"] = json!(["q_proj"]);
    write(&directory, &fewer, &tensors(1));
    refused("belongs to no layer of `target_modules`");

    let mut other = config();
    other["target_modules"] = json!(["q_proj", "lm_head"]);
    write(&directory, &other, &tensors(1));
    refused("`target_modules` has \"lm_head\"");

    let mut missing = tensors(1);
    missing.remove(&format!("base_model.model.model.layers.1.{}.lora_B.weight", TARGETS[3].0)).unwrap();
    write(&directory, &config(), &missing);
    refused("o_proj.lora_B.weight` is missing");

    let mut deeper = tensors(1);
    let one_more = deeper[&format!("base_model.model.model.layers.1.{}.lora_A.weight", TARGETS[0].0)].clone();
    deeper.insert("base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight".to_owned(), one_more);
    write(&directory, &config(), &deeper);
    refused("in a base of 2 layers");
}

#[test]
fn a_model_with_an_adapter_has_the_weights_of_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let base = source("tiny-chat");
    let tuned = adapted("tiny-chat", folder.path(), 1);
    assert_eq!(tuned.info().name, "tuned");
    assert_eq!(tuned.digest().unwrap(), base.digest().unwrap(), "one copy");
    assert!(tuned.has_weights_of(&base) && !tuned.has_weights_of(&source("tiny-qwen3")));
    let (one, two) = (adapter(&tuned), adapter(&adapted("tiny-chat", folder.path(), 2)));
    assert_eq!(tuned.adapter_bytes(), one.bytes());
    assert!(one.bytes() > 0 && base.adapter_bytes() == 0);
    assert_ne!(one.digest(), two.digest());
}
