//! Fine-tuning: it learns, says what it cannot use, and goes on where it was interrupted as if it had not been.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::{chat_model, decoder, source, step};
use provost_gpu_infer::{DataProblem, Segment, TuneError, TuneSettings, TuneStep, Tuned, fine_tune};
use provost_types::ChatMessage;

const CONVERSATIONS: [(&str, &str); 3] = [("colour?", "blue"), ("number?", "seven"), ("place?", "the sea")];
/// What ends an answer in the template of the fixtures.
const END: &str = "<|end|>";

fn write_data(path: &Path, conversations: &[(&str, &str)]) {
    let line = |(asked, answer): &(&str, &str)| {
        let messages = [("user", asked), ("assistant", answer)]
            .map(|(role, content)| serde_json::json!({ "role": role, "content": content }));
        format!("{}\n", serde_json::json!({ "messages": messages }))
    };
    std::fs::write(path, conversations.iter().map(line).collect::<String>()).unwrap();
}

fn data(folder: &Path) -> PathBuf {
    let path = folder.join("data.jsonl");
    write_data(&path, &CONVERSATIONS);
    path
}

fn settings(steps: u64) -> TuneSettings {
    TuneSettings { steps, learning_rate: 5e-3, batch: 3, checkpoint_every: 5, ..TuneSettings::default() }
}

/// Trains on a fixture; `watch` hears of each step besides.
fn tune_with(
    model: &str,
    data: &Path,
    out: &Path,
    settings: &TuneSettings,
    mut watch: impl FnMut(&TuneStep) -> ControlFlow<()> + Send,
) -> Result<(Tuned, Vec<f32>), TuneError> {
    let mut losses = Vec::new();
    let tuned = fine_tune(&source(model), data, out, settings, &mut |step: &TuneStep| {
        losses.push(step.loss);
        watch(step)
    })?;
    Ok((tuned, losses))
}

fn tune(model: &str, data: &Path, out: &Path, settings: &TuneSettings) -> Result<(Tuned, Vec<f32>), TuneError> {
    tune_with(model, data, out, settings, |_| ControlFlow::Continue(()))
}

fn tensors(folder: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join("adapter_model.safetensors"), &Device::Cpu).unwrap()
}

/// The largest difference between two adapters.
fn difference(a: &Path, b: &Path) -> f32 {
    let (a, b) = (tensors(a), tensors(b));
    assert_eq!(a.len(), b.len());
    let worst = a.iter().map(|(name, tensor)| {
        let apart = (tensor - &b[name]).unwrap().abs().unwrap().flatten_all().unwrap();
        apart.max(0).unwrap().to_scalar::<f32>().unwrap()
    });
    worst.fold(0.0, f32::max)
}

/// Minus the logarithm of the likelihood of a token of the answers, as the model with an adapter is served.
fn served_loss(model: &str, adapter: &Path) -> f64 {
    let tuned = source(model).adapted("tuned", adapter).unwrap();
    let (decoder, text) = (decoder(&tuned), tuned.load_chat_text().unwrap());
    let adapter = tuned.load_adapter_on(&common::device()).unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for (asked, answer) in CONVERSATIONS {
        let mut tokens = text.prompt(&[ChatMessage::new("user", asked)]).unwrap();
        let mut cache = decoder.cache(200);
        for expected in text.encode(&format!("{answer}{END}")).unwrap() {
            let mut segments = [Segment { tokens: &tokens, cache: &mut cache }];
            let logits = decoder.forward_with(&mut segments, &[adapter.as_ref()]).unwrap().remove(0);
            let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            sum += total.ln() - f64::from(logits[expected as usize]);
            count += 1;
            tokens = vec![expected];
        }
    }
    sum / f64::from(count)
}

#[test]
fn the_loss_falls_and_what_was_learned_is_served() {
    const STEPS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    for model in ["tiny-chat", "tiny-qwen3"] {
        let out = folder.path().join(model);
        let (tuned, losses) = tune(model, &data, &out, &settings(STEPS)).unwrap();
        assert_eq!((tuned.steps, tuned.resumed_from, tuned.examples), (STEPS, 0, 3));
        assert!(tuned.is_complete);
        // Rank 8 times the widths of seven targets in two layers.
        assert_eq!(tuned.parameters, 8 * 2 * (128 + 96 + 96 + 128 + 192 + 192 + 192));
        let (first, last) = (losses[0], *losses.last().unwrap());
        assert!(first > 2.0 && last < first / 2.0, "{model}: {losses:?}");
        let served = served_loss(model, &out);
        assert!(served < f64::from(first) / 2.0, "{model}: {served} after {last}");
        // It is a model as any other.
        let model = source(model).adapted("tuned", &out).unwrap();
        let adapter = model.load_adapter_on(&common::device()).unwrap().unwrap();
        let chat = chat_model(&model).with_adapter(adapter.into());
        let request = common::request(CONVERSATIONS[0].0, 8);
        let mut generation = common::started(&chat, &request);
        while step(&chat, &mut generation).finish.is_none() {}
    }
}

#[test]
fn a_run_that_was_killed_or_stopped_ends_as_one_that_was_not() {
    const STEPS: u64 = 12;
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let [whole, killed, stopped] = ["whole", "killed", "stopped"].map(|name| folder.path().join(name));
    // Two of three a step, so that the order of examples matters.
    let settings = TuneSettings { batch: 2, ..settings(STEPS) };
    std::fs::create_dir(&killed).unwrap();
    let (_, expected) = tune_with("tiny-chat", &data, &whole, &settings, |step| {
        if step.step == 8 {
            // What a process leaves that is killed here.
            let file = "checkpoint.safetensors";
            std::fs::copy(whole.join(file), killed.join(file)).unwrap();
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(expected.len() as u64, STEPS);
    let agree = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);

    let (tuned, losses) = tune("tiny-chat", &data, &killed, &settings).unwrap();
    assert_eq!((tuned.steps, tuned.resumed_from, tuned.is_complete), (STEPS, 5, true));
    assert!(agree(&losses, &expected[5..]), "{losses:?} {expected:?}");
    assert!(difference(&whole, &killed) < 1e-4);

    let until_seven = |step: &TuneStep| if step.step == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let (tuned, _) = tune_with("tiny-chat", &data, &stopped, &settings, until_seven).unwrap();
    assert_eq!((tuned.steps, tuned.is_complete), (7, false));
    assert!(!stopped.join("adapter_config.json").exists(), "no adapter before its time");
    let (tuned, losses) = tune("tiny-chat", &data, &stopped, &settings).unwrap();
    assert_eq!(tuned.resumed_from, 7);
    assert!(agree(&losses, &expected[7..]), "{losses:?} {expected:?}");
    assert!(difference(&whole, &stopped) < 1e-4);

    // Again: there is nothing left to do. And longer: it goes on.
    let (tuned, losses) = tune("tiny-chat", &data, &stopped, &settings).unwrap();
    assert!(tuned.is_complete && losses.is_empty());
    let (tuned, losses) = tune("tiny-chat", &data, &stopped, &TuneSettings { steps: STEPS + 2, ..settings }).unwrap();
    assert_eq!((tuned.resumed_from, losses.len()), (STEPS, 2));
}

#[test]
fn two_do_not_train_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (data(folder.path()), folder.path().join("out"));
    let mut second = None;
    tune_with("tiny-chat", &data, &out, &settings(1), |_| {
        second = Some(tune("tiny-chat", &data, &out, &settings(1)).map(|_| ()));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(matches!(second, Some(Err(TuneError::InUse(_)))), "{second:?}");
}

#[test]
fn a_seed_decides_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let out = |name: &str, seed| {
        let out = folder.path().join(name);
        tune("tiny-chat", &data, &out, &TuneSettings { seed, batch: 1, ..settings(3) }).unwrap();
        out
    };
    let (one, same, other) = (out("one", 1), out("same", 1), out("other", 2));
    assert!(difference(&one, &same) < 1e-5);
    assert!(difference(&one, &other) > 1e-2);
}

#[test]
fn lines_that_cannot_be_used_are_all_named_and_nothing_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data.jsonl"), folder.path().join("out"));
    let message = |role: &str, content: &str| format!(r#"{{"role":"{role}","content":"{content}"}}"#);
    let (user, assistant) = (message("user", "hi"), message("assistant", "ho"));
    let long = message("assistant", &"long ".repeat(400));
    let lines = [
        format!(r#"{{"messages":[{user},{assistant}]}}"#),
        "not json".to_owned(),
        "  ".to_owned(),
        format!(r#"{{"messages":[{user}]}}"#),
        format!(r#"{{"messages":[{assistant}]}}"#),
        format!(r#"{{"messages":[{user},{assistant}],"weight":2}}"#),
        r#"{"messages":[{"role":"user","content":["parts"]}]}"#.to_owned(),
        format!(r#"{{"messages":[{user},{long}]}}"#),
    ];
    std::fs::write(&data, lines.join("\n")).unwrap();
    let refused = tune("tiny-chat", &data, &out, &settings(1)).unwrap_err();
    let text = refused.to_string();
    assert!(text.starts_with("PV-TUNE-DATA: 6 lines cannot be used, and nothing was trained"), "{text}");
    let TuneError::Data(DataProblem::Lines { shown, more: 0 }) = refused else { panic!("{text}") };
    let says = [
        (2, "no conversation"),
        (4, "the last message must be"),
        (5, "the last message must be"),
        (6, "unknown field `weight`"),
        (7, "invalid type"),
        (8, "tokens, and may have 1024"),
    ];
    assert_eq!(shown.len(), says.len());
    for (bad, (line, says)) in shown.iter().zip(says) {
        assert!(bad.line == line && bad.cause.contains(says), "{bad:?}");
    }
    assert!(!out.exists());

    std::fs::write(&data, "\n\n").unwrap();
    let empty = tune("tiny-chat", &data, &out, &settings(1)).unwrap_err().to_string();
    assert!(empty.starts_with("PV-TUNE-DATA") && empty.contains("has no lines"), "{empty}");
    let missing = tune("tiny-chat", &folder.path().join("gone"), &out, &settings(1)).unwrap_err().to_string();
    assert!(missing.starts_with("PV-TUNE-DATA"), "{missing}");
}

#[test]
fn a_folder_goes_on_only_with_what_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (data(folder.path()), folder.path().join("out"));
    tune("tiny-chat", &data, &out, &settings(2)).unwrap();
    let other_data = folder.path().join("other.jsonl");
    write_data(&other_data, &CONVERSATIONS[..2]);
    let refused =
        |model: &str, data: &Path, settings: &TuneSettings| tune(model, data, &out, settings).unwrap_err().to_string();
    for (text, says) in [
        (refused("tiny-qwen3", &data, &settings(2)), "another base"),
        (refused("tiny-chat", &other_data, &settings(2)), "other data"),
        (refused("tiny-chat", &data, &TuneSettings { rank: 4, ..settings(2) }), "other settings"),
    ] {
        assert!(text.starts_with("PV-TUNE-FOLDER") && text.contains(says), "{text}");
    }
    std::fs::remove_file(out.join("checkpoint.safetensors")).unwrap();
    let text = refused("tiny-chat", &data, &settings(2));
    assert!(text.starts_with("PV-TUNE-FOLDER") && text.contains("adapter_model.safetensors"), "{text}");
    std::fs::write(out.join("checkpoint.safetensors"), "damaged").unwrap();
    assert!(refused("tiny-chat", &data, &settings(2)).starts_with("PV-TUNE-FOLDER"));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (data(folder.path()), folder.path().join("out"));
    let plain = || settings(1);
    for (settings, says) in [
        (TuneSettings { rank: 0, ..plain() }, "rank"),
        (TuneSettings { rank: 5000, ..plain() }, "rank"),
        (TuneSettings { alpha: f64::NAN, ..plain() }, "alpha"),
        (TuneSettings { learning_rate: 0.0, ..plain() }, "learning rate"),
        (TuneSettings { steps: 0, ..plain() }, "steps"),
        (TuneSettings { checkpoint_every: 0, ..plain() }, "checkpoints"),
        (TuneSettings { batch: 0, ..plain() }, "batch"),
        (TuneSettings { targets: Vec::new(), ..plain() }, "targets"),
        (TuneSettings { targets: vec!["lm_head".to_owned()], ..plain() }, "`lm_head`"),
    ] {
        let text = tune("tiny-chat", &data, &out, &settings).unwrap_err().to_string();
        assert!(text.starts_with("PV-TUNE-SETTINGS") && text.contains(says), "{says}: {text}");
    }
}
