//! Fixtures and comparisons for the tests of this crate.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod adapters;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use provost_gpu_infer::{ChatModel, ComputeDevice, Decoder, Generation, KvPool, ModelSource, Network, Step, Turn};
use provost_types::ChatRequest;

pub fn fixtures() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures")
}

pub fn source(name: &str) -> ModelSource {
    ModelSource::open(name, &fixtures().join(name)).unwrap()
}

/// What models of tests compute on: `PROVOST_TEST_DEVICE`, else the processor.
pub fn device() -> ComputeDevice {
    static DEVICE: OnceLock<ComputeDevice> = OnceLock::new();
    let open = || {
        let choice = std::env::var("PROVOST_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
        ComputeDevice::open(choice.parse().unwrap(), 0).unwrap()
    };
    DEVICE.get_or_init(open).clone()
}

pub fn decoder(source: &ModelSource) -> Arc<Decoder> {
    match source.load_network_on(&device(), source.digest().unwrap()).unwrap() {
        Network::Decoder(decoder) => decoder,
        Network::Encoder(_) | Network::Speech(_) => panic!("{} is not a decoder", source.info().name),
    }
}

pub fn chat_model(source: &ModelSource) -> ChatModel {
    ChatModel::new(decoder(source), Arc::new(source.load_chat_text().unwrap()))
}

/// Token ids and the logits that transformers computed for them.
pub fn reference(name: &str) -> (Vec<u32>, Vec<Vec<f32>>) {
    let path = fixtures().join(format!("{name}.ref.safetensors"));
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let ids = tensors["ids"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    (ids, tensors["logits"].to_vec2().unwrap())
}

pub fn worst_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| row_difference(a, b)).fold(0.0, f32::max)
}

pub fn row_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

pub fn request(text: &str, max_tokens: u32) -> ChatRequest {
    ChatRequest::greedy("", "", text, max_tokens)
}

/// The tensors of a fixture's weight file.
pub fn weights(name: &str) -> std::collections::HashMap<String, Tensor> {
    let path = fixtures().join(name).join("model.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Copies a fixture's files into a directory that a test may damage.
pub fn copy_fixture(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(fixtures().join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A pool with room for some requests of full length.
pub fn pool(decoder: &Decoder) -> KvPool {
    decoder.kv_pool(4 * decoder.kv_bytes(decoder.context())).unwrap()
}

/// An answer with its place in a pool of its own.
pub fn started(model: &ChatModel, request: &ChatRequest) -> Generation {
    let mut generation = model.start(request).unwrap();
    assert!(generation.take_place(&pool(model.decoder())));
    generation
}

/// One step of one answer.
pub fn step(model: &ChatModel, generation: &mut Generation) -> Step {
    let tokens = usize::MAX;
    model.step(&mut [Turn { generation, tokens }]).unwrap().remove(0).unwrap()
}
