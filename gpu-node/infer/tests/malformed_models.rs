//! Damaged and unsuitable model directories: an error that names the file, never a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};

use common::copy_fixture;
use provost_gpu_infer::{ModelSource, discover};

/// Describes, then loads everything.
fn load(path: &Path) -> Result<(), String> {
    let source = ModelSource::open("m", path).map_err(|e| e.to_string())?;
    source.load_network().map_err(|e| e.to_string())?;
    source.load_chat_text().map_err(|e| e.to_string())?;
    Ok(())
}

fn damaged(change: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    copy_fixture("tiny-chat", &path);
    load(&path).expect("the fixture is sound");
    change(&path);
    let error = load(&path).expect_err("it was damaged");
    assert!(error.starts_with("PV-MODEL-"), "{error}");
    assert!(!error.contains(folder.path().to_str().unwrap()), "no paths: {error}");
    error
}

fn set(path: &Path, key: &str, value: serde_json::Value) {
    let file = path.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(&file, config.to_string()).unwrap();
}

fn write(path: &Path, file: &str, bytes: &[u8]) {
    std::fs::write(path.join(file), bytes).unwrap();
}

#[test]
fn missing_files() {
    let check = |file: &str, says: &str| {
        let error = damaged(|path| std::fs::remove_file(path.join(file)).unwrap());
        assert!(error.contains(says), "{file}: {error}");
    };
    check("config.json", "config.json");
    check("model.safetensors", "model.safetensors");
    check("tokenizer.json", "the model has no tokenizer");
    check("chat_template.jinja", "the model has no chat template");
}

#[test]
fn damaged_configurations() {
    let check = |key: &'static str, value: serde_json::Value, says: &str| {
        let error = damaged(|path| set(path, key, value));
        assert!(error.contains(says), "{key}: {error}");
    };
    check("model_type", "mamba".into(), "`mamba` is not supported; supported: bert, llama, qwen3");
    check("model_type", serde_json::Value::Null, "`model_type` is missing");
    check("hidden_size", serde_json::Value::Null, "`hidden_size` is missing");
    check("hidden_size", 0.into(), "hidden size is 0");
    check("hidden_size", 32.into(), "has shape");
    check("vocab_size", 255.into(), "has shape");
    check("num_hidden_layers", 3.into(), "`model.layers.2.");
    check("num_hidden_layers", 100_000.into(), "layers is 100000");
    check("num_key_value_heads", 3.into(), "do not divide");
    check("head_dim", 15.into(), "odd");
    check("hidden_act", "relu6".into(), "`relu6` is not supported");
    check("max_position_embeddings", u64::MAX.into(), "context");
    check("rope_parameters", serde_json::json!({"rope_type": "yarn"}), "`yarn`");
    check("rope_parameters", serde_json::json!({"rope_type": "linear"}), "factor");
    check("rope_parameters", serde_json::json!({"rope_theta": -1.0}), "out of range");
    let error = damaged(|path| write(path, "config.json", b"{\"model_type\": \"llama\""));
    assert!(error.contains("config.json: EOF"), "{error}");
}

#[test]
fn damaged_weights() {
    let whole = std::fs::read(common::fixtures().join("tiny-chat/model.safetensors")).unwrap();
    let check = |bytes: &[u8], says: &str| {
        let error = damaged(|path| write(path, "model.safetensors", bytes));
        assert!(error.contains(says), "{says}: {error}");
        assert!(error.contains("model.safetensors"), "{error}");
    };
    check(&[], "shorter than its header");
    check(&whole[..4], "shorter than its header");
    check(&whole[..100], "shorter than its header");
    check(&whole[..whole.len() - 1], "truncated");
    check(&whole[..whole.len() / 2], "truncated");
    check(&[0xff; 64], "shorter than its header");
    check(b"\x04\0\0\0\0\0\0\0nope", "model.safetensors");
    for at in (0..2048).step_by(61) {
        let folder = tempfile::tempdir().unwrap();
        copy_fixture("tiny-chat", folder.path());
        let mut broken = whole.clone();
        broken[at] ^= 0xff;
        write(folder.path(), "model.safetensors", &broken);
        // Any answer but a panic will do.
        let _ = load(folder.path());
    }
}

#[test]
fn damaged_text_sides() {
    let error = damaged(|path| write(path, "tokenizer.json", b"{}"));
    assert!(error.contains("tokenizer.json"), "{error}");
    let error = damaged(|path| write(path, "chat_template.jinja", b"{% if %}"));
    assert!(error.contains("chat_template.jinja"), "{error}");
    let error = damaged(|path| write(path, "chat_template.jinja", &[0xff, 0xfe]));
    assert!(error.contains("chat_template.jinja"), "{error}");
    let error = damaged(|path| write(path, "tokenizer_config.json", b"[1]"));
    assert!(error.contains("tokenizer_config.json"), "{error}");
}

#[test]
fn a_shard_may_not_lead_out_of_the_directory() {
    let error = damaged(|path| {
        std::fs::remove_file(path.join("model.safetensors")).unwrap();
        let index = br#"{"weight_map": {"lm_head.weight": "../../etc/passwd"}}"#;
        write(path, "model.safetensors.index.json", index);
    });
    assert!(error.contains("not a plain file name"), "{error}");
}

#[test]
fn shards_load_as_one() {
    let folder = tempfile::tempdir().unwrap();
    copy_fixture("tiny-chat", folder.path());
    let tensors = common::weights("tiny-chat");
    let (mut first, mut second) = (tensors.clone(), tensors);
    first.retain(|name, _| name.contains("layers.0"));
    second.retain(|name, _| !name.contains("layers.0"));
    let map: serde_json::Map<String, serde_json::Value> = first
        .keys()
        .map(|name| (name.clone(), "a.safetensors".into()))
        .chain(second.keys().map(|name| (name.clone(), "b.safetensors".into())))
        .collect();
    candle_core::safetensors::save(&first, folder.path().join("a.safetensors")).unwrap();
    candle_core::safetensors::save(&second, folder.path().join("b.safetensors")).unwrap();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    write(folder.path(), "model.safetensors.index.json", index.as_bytes());
    load(folder.path()).unwrap();
}

#[test]
fn discovery_lists_what_looks_like_a_model() {
    let folder = tempfile::tempdir().unwrap();
    copy_fixture("tiny-chat", &folder.path().join("b-model"));
    copy_fixture("tiny-chat", &folder.path().join("has space"));
    copy_fixture("tiny-chat", &folder.path().join(".hidden"));
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    write(folder.path(), "a-model.gguf", b"GGUF");
    write(folder.path(), "notes.txt", b"");
    let found: Vec<(String, PathBuf)> = discover(folder.path()).unwrap();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a-model", "b-model"]);
    assert!(discover(&folder.path().join("nowhere")).is_err());
}

#[test]
fn a_digest_tells_content_from_names() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    copy_fixture("tiny-chat", &one);
    copy_fixture("tiny-chat", &two);
    let digest = |path: &Path| ModelSource::open("m", path).unwrap().digest().unwrap();
    assert_eq!(digest(&one), digest(&two));
    set(&two, "rms_norm_eps", 1e-6.into());
    assert_ne!(digest(&one), digest(&two));
}
