//! The speech model against what transformers computed with the same weights, and recordings from end to end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{copy_fixture, fixtures, worst_difference};
use provost_gpu_infer::{InferError, ModelSource, SpeechJob, SpeechModel, SpeechRequest, Transcript};
use provost_types::{ModelKind, speech_tokens_at_most};

const TOLERANCE: f32 = 1e-4;
/// Samples a second of the recording.
const RATE: u32 = 16_000;

fn model() -> SpeechModel {
    SpeechModel::open("tiny-whisper", &fixtures().join("tiny-whisper")).unwrap()
}

fn reference() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join("whisper.ref.safetensors"), &Device::Cpu).unwrap()
}

fn recording() -> Vec<u8> {
    std::fs::read(fixtures().join("glide.wav")).unwrap()
}

fn request(audio: Vec<u8>, timestamps: bool) -> SpeechRequest {
    let language = Some("en".to_owned());
    SpeechRequest { audio: audio.into(), language, prompt: String::new(), temperature: 0.0, timestamps }
}

fn transcribe(model: &SpeechModel, request: &SpeechRequest) -> Transcript {
    finish(model, model.start(request).unwrap())
}

fn finish(model: &SpeechModel, mut job: SpeechJob) -> Transcript {
    for _ in 0..1_000_000 {
        if let Some(transcript) = model.step(&mut job).unwrap() {
            return transcript;
        }
    }
    panic!("the recording has no end");
}

/// The recording several times, one after another, as a WAV.
fn repeated(times: usize) -> Vec<u8> {
    let file = recording();
    let (head, sound) = file.split_at(44);
    let sound = sound.repeat(times);
    let mut made = head.to_vec();
    let length = u32::try_from(sound.len()).unwrap();
    made[4..8].copy_from_slice(&(36 + length).to_le_bytes());
    made[40..44].copy_from_slice(&length.to_le_bytes());
    made.extend(sound);
    made
}

#[test]
fn the_spectrogram_agrees() {
    let expected: Vec<Vec<f32>> = reference()["mel"].to_vec2().unwrap();
    let job = model().start(&request(recording(), false)).unwrap();
    let found = job.spectrogram(0);
    let found: Vec<Vec<f32>> = found.chunks(expected[0].len()).map(<[f32]>::to_vec).collect();
    let worst = worst_difference(&found, &expected);
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn the_encoder_agrees_from_the_recording_on() {
    let model = model();
    let job = model.start(&request(recording(), false)).unwrap();
    let found: Vec<Vec<f32>> = model.whisper().encode(job.spectrogram(0)).unwrap().to_vec2().unwrap();
    let worst = worst_difference(&found, &reference()["encoded"].to_vec2().unwrap());
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn the_decoder_agrees_at_once_and_token_by_token() {
    let (model, reference) = (model(), reference());
    let whisper = model.whisper();
    let ids: Vec<u32> = reference["ids"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    let expected: Vec<Vec<f32>> = reference["logits"].to_vec2().unwrap();
    let heard = whisper.heard(&reference["encoded"]).unwrap();
    let read = &ids[..expected.len()];

    let found = whisper.read(read, &heard, &mut whisper.cache()).unwrap();
    let worst = worst_difference(&found, &expected);
    assert!(worst < TOLERANCE, "at once: {worst}");
    for chunk in [1, 3] {
        let (mut cache, mut found) = (whisper.cache(), Vec::new());
        for tokens in read.chunks(chunk) {
            found.extend(whisper.read(tokens, &heard, &mut cache).unwrap());
        }
        let worst = worst_difference(&found, &expected);
        assert!(worst < TOLERANCE, "{chunk} at a time: {worst}");
    }
}

#[test]
fn a_cache_that_is_full_and_a_token_that_is_none_are_errors_that_change_nothing() {
    let (model, reference) = (model(), reference());
    let whisper = model.whisper();
    let heard = whisper.heard(&reference["encoded"]).unwrap();
    let expected: Vec<Vec<f32>> = reference["logits"].to_vec2().unwrap();
    let ids: Vec<u32> = reference["ids"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    let mut cache = whisper.cache();
    whisper.read(&ids[..4], &heard, &mut cache).unwrap();
    assert!(whisper.read(&[], &heard, &mut cache).is_err());
    assert!(whisper.read(&[whisper.vocabulary() as u32], &heard, &mut cache).is_err());
    assert!(whisper.read(&vec![1; whisper.context()], &heard, &mut cache).is_err());
    let next = whisper.read(&ids[4..5], &heard, &mut cache).unwrap();
    assert!(worst_difference(&next, &expected[4..5]) < TOLERANCE);
}

/// The whole way: the greedy tokens are those of transformers, to the one that ends the text.
#[test]
fn a_recording_becomes_the_greedy_text() {
    const END: u32 = 256;
    let ids: Vec<u32> = reference()["ids"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    let expected: Vec<u8> = ids[4..].iter().take_while(|id| **id != END).map(|id| *id as u8).collect();
    assert!(ids.contains(&END) && expected.len() > 8, "{ids:?}");
    let transcript = transcribe(&model(), &request(recording(), false));
    // Its vocabulary is of bytes.
    assert_eq!(transcript.text, String::from_utf8_lossy(&expected).trim());
    assert_eq!((transcript.language.as_deref(), transcript.segments.len()), (Some("en"), 1));
    assert_eq!(transcript.usage.completion, expected.len() as u64);
    assert_eq!(transcript.usage.prompt, 4 + 69, "the prompt, and fiftieths of a second");
    assert!((transcript.seconds - 1.37).abs() < 1e-6);
    let segment = &transcript.segments[0];
    assert!(segment.from_s.abs() < 1e-9 && (segment.to_s - 1.37).abs() < 1e-6, "{segment:?}");
    assert!(segment.mean_logprob < 0.0 && (0.0..=1.0).contains(&segment.silence), "{segment:?}");
}

#[test]
fn times_are_in_order_and_within_the_recording() {
    let model = model();
    for times in [1, 2, 5] {
        let transcript = transcribe(&model, &request(repeated(times), true));
        assert!((transcript.seconds - 1.37 * times as f64).abs() < 1e-6);
        let mut last = 0.0;
        for segment in &transcript.segments {
            assert!(segment.from_s >= last - 1e-9 && segment.to_s >= segment.from_s - 1e-9, "{segment:?}");
            assert!(segment.to_s <= transcript.seconds + 1e-9, "{segment:?}");
            last = segment.from_s;
        }
        let whole: String = transcript.segments.iter().map(|segment| segment.text.as_str()).collect();
        assert_eq!(transcript.text, whole.trim());
    }
}

/// However often a part was heard, it is counted once; and what is written has a bound.
#[test]
fn a_second_of_sound_is_fifty_tokens_whatever_windows_overlap() {
    let model = model();
    let plain = transcribe(&model, &request(recording(), false)).usage.prompt - 69;
    for times in [2, 5] {
        let mut job = model.start(&request(repeated(times), true)).unwrap();
        assert!(job.bytes() > 0 && job.computed() == 0);
        let transcript = loop {
            if let Some(transcript) = model.step(&mut job).unwrap() {
                break transcript;
            }
        };
        let sound = (137 * times as u64).div_ceil(2);
        // With times there is one word less to tell the model.
        assert_eq!(transcript.usage.prompt, sound + plain - 1);
        assert!(transcript.usage.completion <= speech_tokens_at_most(transcript.seconds.ceil() as u64));
        assert!(job.computed() >= sound + transcript.usage.completion);
    }
}

#[test]
fn a_models_directory_may_have_it() {
    let source = ModelSource::open("tiny-whisper", &fixtures().join("tiny-whisper")).unwrap();
    let info = source.info();
    assert_eq!((info.kind, info.architecture.as_str(), info.context_tokens), (ModelKind::Speech, "whisper", 64));
    assert!(source.weight_bytes() > 0 && source.digest().is_ok());
    assert!(source.adapted("tuned", &fixtures()).is_err(), "adapters are for chat models");
}

/// What is computed of a window does not depend on what else the node computes in between.
#[test]
fn jobs_that_take_turns_do_not_see_each_other() {
    let model = model();
    let alone = transcribe(&model, &request(repeated(2), true));
    let mut jobs =
        [model.start(&request(repeated(2), true)).unwrap(), model.start(&request(recording(), false)).unwrap()];
    let mut done = [None, None];
    for _ in 0..1_000_000 {
        for (job, done) in jobs.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            *done = model.step(job).unwrap();
        }
        if done.iter().all(Option::is_some) {
            break;
        }
    }
    assert_eq!(done[0].as_ref(), Some(&alone));
    assert_eq!(done[1].as_ref().unwrap().text, transcribe(&model, &request(recording(), false)).text);
}

#[test]
fn a_language_that_is_not_told_is_found_out() {
    let model = model();
    let untold = SpeechRequest { language: None, ..request(recording(), false) };
    let transcript = transcribe(&model, &untold);
    let language = transcript.language.clone().unwrap();
    assert!(["en", "de"].contains(&language.as_str()));
    let told = SpeechRequest { language: Some(language), ..untold };
    assert_eq!(transcribe(&model, &told).text, transcript.text);
}

#[test]
fn what_was_said_before_is_read() {
    let model = model();
    let plain = transcribe(&model, &request(recording(), false));
    let prompted = SpeechRequest { prompt: "names: Ada".to_owned(), ..request(recording(), false) };
    let read = transcribe(&model, &prompted).usage.prompt - plain.usage.prompt;
    assert_eq!(read, 1 + " names: Ada".len() as u64);
}

#[test]
fn what_cannot_be_served_is_refused_by_its_cause() {
    let model = model();
    let sound = || request(recording(), false);
    for (request, says) in [
        (SpeechRequest { temperature: 1.5, ..sound() }, "temperature"),
        (SpeechRequest { temperature: f32::NAN, ..sound() }, "temperature"),
        (SpeechRequest { language: Some("xx".to_owned()), ..sound() }, "`language`"),
        (SpeechRequest { prompt: "a".repeat(20_000), ..sound() }, "prompt"),
        (SpeechRequest { audio: Arc::from(*b"no sound"), ..sound() }, "audio"),
    ] {
        let refused = model.start(&request).unwrap_err();
        assert!(matches!(&refused, InferError::Request(cause) if cause.contains(says)), "{says}: {refused}");
    }
}

#[test]
fn files_that_are_damaged_are_errors() {
    let open = |path: &Path| SpeechModel::open("m", path).unwrap_err().to_string();
    for (file, from, to, says) in [
        ("config.json", "\"whisper\"", "\"mamba\"", "PV-MODEL-UNSUPPORTED"),
        ("config.json", "\"d_model\": 16", "\"d_model\": 0", "`d_model` is 0"),
        ("config.json", "\"d_model\": 16", "\"d_model\": 32", "has shape"),
        ("config.json", "\"encoder_attention_heads\": 2", "\"encoder_attention_heads\": 3", "do not divide"),
        ("config.json", "\"max_source_positions\": 100", "\"max_source_positions\": 9999999", "max_source_positions"),
        ("config.json", "\"vocab_size\": 367", "\"vocab_size\": 300", "special tokens"),
        ("tokenizer.json", "<|notimestamps|>", "<|else|>", "<|notimestamps|>"),
        ("generation_config.json", "258", "3", "<|en|>"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        copy_fixture("tiny-whisper", directory.path());
        let path = directory.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file}: {from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let said = open(directory.path());
        assert!(said.contains(says), "{file}: {said}");
    }
    let directory = tempfile::tempdir().unwrap();
    copy_fixture("tiny-whisper", directory.path());
    let weights = directory.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    assert!(open(directory.path()).contains("PV-MODEL-MALFORMED"));
}

/// A second of sound stays a second, whatever it is written as.
#[test]
fn other_sample_rates_sound_alike() {
    let model = model();
    let half: Vec<i16> = recording()[44..].as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    // Every sample twice over is the same sound at twice the rate, with a little more above.
    let mut doubled = recording()[..44].to_vec();
    doubled[24..28].copy_from_slice(&(2 * RATE).to_le_bytes());
    doubled[28..32].copy_from_slice(&(4 * RATE).to_le_bytes());
    let sound: Vec<u8> = half.iter().flat_map(|sample| [*sample, *sample]).flat_map(i16::to_le_bytes).collect();
    doubled[4..8].copy_from_slice(&(36 + sound.len() as u32).to_le_bytes());
    doubled[40..44].copy_from_slice(&(sound.len() as u32).to_le_bytes());
    doubled.extend(sound);
    let transcript = transcribe(&model, &request(doubled, false));
    assert!((transcript.seconds - 1.37).abs() < 1e-3, "{}", transcript.seconds);
}
