//! A request over an adapter whose base comes when the test lets it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use futures::StreamExt;
use provost_gpu_infer::ComputeDevice;
use provost_types::{ChatEvent, ChatRequest, Inference, InferenceError};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{AdapterModel, GpuConfig};
use crate::loader::{self, Part};
use crate::node::GpuNode;

const LAYERS: usize = 2;
const HIDDEN: usize = 64;
const RANK: usize = 2;
/// Two tensors of each layer's queries.
const ADAPTER_BYTES: u64 = (LAYERS * 2 * RANK * HIDDEN * size_of::<f32>()) as u64;

fn write_adapter(directory: &Path) {
    let config = serde_json::json!({ "peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj"] });
    std::fs::write(directory.join("adapter_config.json"), config.to_string()).unwrap();
    let bytes: Vec<u8> = (0..RANK * HIDDEN).flat_map(|at| (at as f32 * 0.01).sin().to_le_bytes()).collect();
    let mut views = HashMap::new();
    for layer in 0..LAYERS {
        for (part, shape) in [("lora_A", vec![RANK, HIDDEN]), ("lora_B", vec![HIDDEN, RANK])] {
            let name = format!("base_model.model.model.layers.{layer}.self_attn.q_proj.{part}.weight");
            views.insert(name, TensorView::new(Dtype::F32, shape, &bytes).unwrap());
        }
    }
    std::fs::write(directory.join("adapter_model.safetensors"), safetensors::serialize(&views, None).unwrap()).unwrap();
}

fn fixtures() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../infer/tests/fixtures")
}

/// Of a node with the adapter `tuned` over `tiny-chat`.
fn config_with(adapter: &Path) -> GpuConfig {
    let tuned = AdapterModel { base: "tiny-chat".to_owned(), path: adapter.to_owned() };
    GpuConfig {
        models_dir: Some(fixtures()),
        adapters: [("tuned".to_owned(), tuned)].into(),
        threads: 2,
        ..GpuConfig::default()
    }
}

/// A node with the adapter `tuned`. Each time something is sent, weights may be read once; always, once the sender is gone.
fn holding(adapter: &Path) -> (Arc<GpuNode>, Sender<()>) {
    write_adapter(adapter);
    let (let_through, gate) = channel();
    let (real, gate) = (loader::reader(ComputeDevice::cpu()), Mutex::new(gate));
    let read = move |entry: &Entry, part: Part| {
        if matches!(part, Part::Network(_)) {
            let _ = gate.lock().unwrap().recv();
        }
        real(entry, part)
    };
    (GpuNode::start_reading(config_with(adapter), Arc::new(read)).unwrap(), let_through)
}

fn asking(node: &Arc<GpuNode>) -> JoinHandle<Result<bool, InferenceError>> {
    let node = Arc::clone(node);
    let request = ChatRequest::greedy("acme", "tuned", "go on", 2);
    tokio::spawn(async move {
        let mut events = node.chat(request).await?;
        let mut has_ended = false;
        while let Some(event) = events.next().await {
            has_ended |= matches!(event?, ChatEvent::End { .. });
        }
        Ok(has_ended)
    })
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_adapter_is_in_the_books_when_it_was_read_and_once_when_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (node, let_through) = holding(dir.path());
    let asked = asking(&node);
    until("the base is being loaded", || node.usage().weights > 0).await;
    assert_eq!(node.usage().reserved, ADAPTER_BYTES, "the adapter is there, and nobody uses it yet");
    let_through.send(()).unwrap();
    assert!(asked.await.unwrap().unwrap());
    until("nobody runs", || node.counts().running == 0).await;
    // The cache is all else that stays.
    let kept = node.usage().reserved - node.kv_usage().capacity;
    assert!((ADAPTER_BYTES..ADAPTER_BYTES + 4096).contains(&kept), "{kept}");
}

#[tokio::test]
async fn an_adapter_that_nobody_waits_for_any_more_leaves_the_books() {
    let dir = tempfile::tempdir().unwrap();
    let (node, let_through) = holding(dir.path());
    let asked = asking(&node);
    until("the adapter is read", || node.usage().reserved == ADAPTER_BYTES && node.usage().weights > 0).await;
    asked.abort();
    until("it has gone", || node.usage().reserved == 0).await;
    drop(let_through);
    // It is read again for who comes later.
    assert!(asking(&node).await.unwrap().unwrap());
}

#[tokio::test]
async fn an_adapter_that_can_never_fit_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    write_adapter(dir.path());
    let base = ModelSource::open("tiny-chat", &fixtures().join("tiny-chat")).unwrap();
    let tuned = base.adapted("tuned", dir.path()).unwrap();
    // The base alone fits.
    let capacity_bytes = tuned.weight_bytes_on(&ComputeDevice::cpu()) + tuned.adapter_bytes() - 1;
    let (real, reads) = (loader::reader(ComputeDevice::cpu()), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&reads);
    let read = move |entry: &Entry, part: Part| {
        counted.fetch_add(1, Ordering::Relaxed);
        real(entry, part)
    };
    let config = GpuConfig { capacity_bytes, ..config_with(dir.path()) };
    let node = GpuNode::start_reading(config, Arc::new(read)).unwrap();
    let error = asking(&node).await.unwrap().unwrap_err();
    assert!(error.message.starts_with("PV-GPU-MEMORY"), "{error}");
    assert_eq!((reads.load(Ordering::Relaxed), node.usage().reserved), (0, 0), "nothing is read");
}
