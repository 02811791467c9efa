//! Model directories and requests for the tests of the node.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use provost_gpu_serve::GpuNode;
use provost_types::{ChatEvent, ChatRequest, EmbedRequest, Inference, InferenceError, TokenUsage};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A models directory that goes away with the test.
pub struct Models(tempfile::TempDir);

impl Models {
    /// A directory with these models; any unknown name is a copy of `tiny-chat`.
    pub fn new(names: &[&str]) -> Self {
        let models = Self(tempfile::tempdir().unwrap());
        for name in names {
            models.add(name);
        }
        models
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub fn add(&self, name: &str) {
        match name {
            "tiny-bert" => write_bert(&self.path().join(name)),
            "tiny-qwen3" | "tiny-whisper" => self.copy(name, name),
            _ => self.copy("tiny-chat", name),
        }
    }

    /// Gives the tokenizer of a model a word for which it has no weights.
    pub fn add_token(&self, name: &str, text: &str) {
        let file = self.path().join(name).join("tokenizer.json");
        let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let added = serde_json::json!({ "id": 256, "content": text, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": false });
        tokenizer["added_tokens"].as_array_mut().unwrap().push(added);
        std::fs::write(&file, tokenizer.to_string()).unwrap();
    }

    /// Adds a fixture under another name.
    pub fn copy(&self, fixture: &str, name: &str) {
        let to = self.path().join(name);
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(fixtures().join(fixture)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    /// Adds a fixture under another name and with other content: its weights are not shared.
    pub fn variant(&self, fixture: &str, name: &str) {
        self.copy(fixture, name);
        let file = self.path().join(name).join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config["_name_or_path"] = name.into();
        std::fs::write(file, config.to_string()).unwrap();
    }
}

pub fn fixtures() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../infer/tests/fixtures")
}

/// A BERT of one layer with arbitrary weights over the byte vocabulary of the fixtures.
fn write_bert(directory: &Path) {
    const HIDDEN: usize = 32;
    const WIDE: usize = 64;
    const CONTEXT: usize = 256;
    std::fs::create_dir_all(directory).unwrap();
    let config = serde_json::json!({"model_type": "bert", "vocab_size": 256, "hidden_size": HIDDEN,
        "intermediate_size": WIDE, "num_hidden_layers": 1, "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT, "type_vocab_size": 2, "hidden_act": "gelu"});
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let tokenizer = fixtures().join("tiny-chat/tokenizer.json");
    std::fs::copy(tokenizer, directory.join("tokenizer.json")).unwrap();

    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![256, HIDDEN]),
        ("embeddings.position_embeddings.weight".into(), vec![CONTEXT, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, HIDDEN]),
    ];
    let layer = "encoder.layer.0";
    for (name, inputs, outputs) in [
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", HIDDEN, WIDE),
        ("output.dense", WIDE, HIDDEN),
    ] {
        shapes.push((format!("{layer}.{name}.weight"), vec![outputs, inputs]));
        shapes.push((format!("{layer}.{name}.bias"), vec![outputs]));
    }
    for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        shapes.push((format!("{norm}.LayerNorm.weight"), vec![HIDDEN]));
        shapes.push((format!("{norm}.LayerNorm.bias"), vec![HIDDEN]));
    }
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .enumerate()
        .map(|(seed, (name, shape))| {
            let count: usize = shape.iter().product();
            let floats = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 2000.0 - 0.25);
            let bytes = floats.flat_map(f32::to_le_bytes).collect();
            (name, shape, bytes)
        })
        .collect();
    let views: HashMap<&str, TensorView<'_>> = data
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()))
        .collect();
    let file = safetensors::serialize(&views, None).unwrap();
    std::fs::write(directory.join("model.safetensors"), file).unwrap();
}

pub fn chat(model: &str, text: &str, max_tokens: u32) -> ChatRequest {
    ChatRequest::greedy("acme", model, text, max_tokens)
}

pub fn sampled(model: &str, seed: u64, max_tokens: u32) -> ChatRequest {
    ChatRequest {
        temperature: 0.9,
        top_p: 0.95,
        seed: Some(seed),
        ..chat(model, &format!("question {seed}"), max_tokens)
    }
}

pub fn embed(model: &str, inputs: &[&str]) -> EmbedRequest {
    let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
    EmbedRequest { tenant: "acme".to_owned(), model: model.to_owned(), inputs }
}

/// Runs a chat to its end.
pub async fn collect(node: &GpuNode, request: ChatRequest) -> Result<(String, TokenUsage), InferenceError> {
    let mut stream = node.chat(request).await?;
    let mut text = String::new();
    while let Some(event) = stream.next().await {
        match event? {
            ChatEvent::Delta(delta) => text.push_str(&delta),
            ChatEvent::Tokens(_) | ChatEvent::Calls(_) | ChatEvent::Silent => {}
            ChatEvent::End { usage, .. } => return Ok((text, usage)),
        }
    }
    panic!("the stream ended without its end");
}

/// Waits until something is so; generous, because machines are slow at times.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
