//! Models that are adapters over another one: one copy of its weights, answers of their own.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use provost_gpu_serve::{AdapterModel, ExclusiveTerms, GpuNode};
use provost_types::Inference;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::common::{Models, chat, collect, sampled, until};
use crate::start_with;

const LAYERS: usize = 2;
const HIDDEN: usize = 64;
const RANK: usize = 2;
/// Two tensors of each layer's queries.
const ADAPTER_BYTES: u64 = (LAYERS * 2 * RANK * HIDDEN * size_of::<f32>()) as u64;

/// An adapter of the queries with arbitrary weights; a width of 0 leaves B zero.
pub(crate) fn write_adapter(directory: &Path, seed: usize, width: f32) {
    std::fs::create_dir_all(directory).unwrap();
    let config = json!({ "peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj"] });
    std::fs::write(directory.join("adapter_config.json"), config.to_string()).unwrap();
    let floats = |salt: usize, width: f32| -> Vec<u8> {
        let value = |at: usize| (((at * 7919 + salt * 104_729) % 1000) as f32 / 1000.0 - 0.5) * width;
        (0..RANK * HIDDEN).map(value).flat_map(f32::to_le_bytes).collect()
    };
    let mut data = Vec::new();
    for layer in 0..LAYERS {
        let name = |part: &str| format!("base_model.model.model.layers.{layer}.self_attn.q_proj.{part}.weight");
        let salt = seed * 100 + layer * 10;
        data.push((name("lora_A"), vec![RANK, HIDDEN], floats(salt, 2.0)));
        data.push((name("lora_B"), vec![HIDDEN, RANK], floats(salt + 5, width)));
    }
    let views: HashMap<&str, TensorView<'_>> = data
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()))
        .collect();
    std::fs::write(directory.join("adapter_model.safetensors"), safetensors::serialize(&views, None).unwrap()).unwrap();
}

/// A node with adapters over `tiny-chat`: `zero` changes nothing, `one` and `two` do.
fn start(models: &Models, adapters: &Path) -> Arc<GpuNode> {
    let named = [("zero", 0, 0.0), ("one", 1, 2.0), ("two", 2, 2.0)].map(|(name, seed, width)| {
        write_adapter(&adapters.join(name), seed, width);
        (name.to_owned(), AdapterModel { base: "tiny-chat".to_owned(), path: adapters.join(name) })
    });
    start_with(models, |config| config.adapters = named.into())
}

async fn answer(node: &GpuNode, model: &str) -> String {
    collect(node, chat(model, "tell me a story of some length", 24)).await.unwrap().0
}

#[tokio::test]
async fn adapters_are_models_that_share_the_weights_of_their_base() {
    let (models, adapters) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let node = start(&models, adapters.path());
    let names: Vec<String> = node.models().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["one", "tiny-chat", "two", "zero"]);
    let base = answer(&node, "tiny-chat").await;
    let weights = node.usage().weights;
    assert_eq!(answer(&node, "zero").await, base, "its B is zero");
    let (one, two) = (answer(&node, "one").await, answer(&node, "two").await);
    assert!(one != base && two != base && one != two, "{base:?} {one:?} {two:?}");
    until("nobody runs", || node.counts().running == 0).await;
    assert_eq!(node.usage().weights, weights, "one copy");
    assert_eq!(node.counts().loads, 1);
    // The cache is all else that stays.
    let kept = node.usage().reserved - node.kv_usage().capacity;
    assert!((3 * ADAPTER_BYTES..4 * ADAPTER_BYTES + 4096).contains(&kept), "{kept}");
}

#[tokio::test]
async fn answers_of_base_and_adapters_at_once_are_those_of_each_alone() {
    let (models, adapters) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let node = start(&models, adapters.path());
    let requests: Vec<_> =
        (0..8u64).map(|seed| sampled(["tiny-chat", "one", "two", "zero"][seed as usize % 4], seed, 20)).collect();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(collect(&node, request.clone()).await.unwrap());
    }
    let node_ref = &*node;
    let together = futures::future::join_all(requests.into_iter().map(|request| collect(node_ref, request))).await;
    for (together, alone) in together.into_iter().zip(alone) {
        assert_eq!(together.unwrap(), alone);
    }
}

#[tokio::test]
async fn an_adapter_that_cannot_be_used_says_why_and_harms_nobody() {
    let (models, adapters) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    write_adapter(&adapters.path().join("good"), 1, 1.0);
    write_adapter(&adapters.path().join("dora"), 1, 1.0);
    let config = adapters.path().join("dora/adapter_config.json");
    let dora =
        json!({ "peft_type": "LORA", "r": RANK, "lora_alpha": 1, "target_modules": ["q_proj"], "use_dora": true });
    std::fs::write(config, dora.to_string()).unwrap();
    let model = |base: &str, path: &str| AdapterModel { base: base.to_owned(), path: adapters.path().join(path) };
    let named = [
        ("nobody".to_owned(), model("nothing", "good")),
        ("over-an-adapter".to_owned(), model("nobody", "good")),
        ("dora".to_owned(), model("tiny-chat", "dora")),
        ("gone".to_owned(), model("tiny-chat", "gone")),
    ];
    let node = start_with(&models, |config| config.adapters = named.into());
    assert_eq!(node.models().len(), 1);
    for (name, says) in [
        ("nobody", "no model `nothing`"),
        ("over-an-adapter", "no model `nobody`"),
        ("dora", "`use_dora`"),
        ("gone", "adapter_config.json"),
    ] {
        let error = collect(&node, chat(name, "hi", 2)).await.unwrap_err();
        assert!(error.message.contains(says) && error.message.contains(name), "{name}: {error}");
    }
    answer(&node, "tiny-chat").await;
}

#[tokio::test]
async fn adapters_go_with_their_base_and_are_read_again_with_it() {
    let (models, adapters) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let node = start(&models, adapters.path());
    let before = answer(&node, "one").await;
    let minute = Duration::from_secs(60);
    let device = node.exclusive(ExclusiveTerms { drain: minute, heartbeat: minute, most: minute }).await.unwrap();
    drop(device);
    until("the device is back", || node.usage().reserved == 0).await;
    assert_eq!(answer(&node, "one").await, before);
}
