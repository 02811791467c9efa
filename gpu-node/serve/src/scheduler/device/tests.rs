//! A device that has less memory left than the books, as often as a test wants.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use provost_gpu_infer::ComputeDevice;
use provost_types::{ChatEvent, ChatRequest, Inference, InferenceError, InferenceErrorKind};

use super::*;
use crate::config::GpuConfig;
use crate::loader::{self, Part};
use crate::node::GpuNode;

/// A node whose device refuses the weights of `tiny-qwen3` so many times.
fn refusing(times: usize) -> Arc<GpuNode> {
    let (real, refused) = (loader::reader(ComputeDevice::cpu()), AtomicUsize::new(0));
    let read = move |entry: &Entry, part: Part| {
        let is_weights = entry.name == "tiny-qwen3" && matches!(part, Part::Network(_));
        if is_weights && refused.fetch_add(1, Ordering::Relaxed) < times {
            return Err(InferError::OutOfMemory);
        }
        real(entry, part)
    };
    let fixtures = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../infer/tests/fixtures");
    let config = GpuConfig { models_dir: Some(fixtures), threads: 2, ..GpuConfig::default() };
    GpuNode::start_reading(config, Arc::new(read)).unwrap()
}

async fn answer(node: &GpuNode, model: &str) -> Result<(), InferenceError> {
    let request = ChatRequest::greedy("acme", model, "go on", 2);
    let mut events = node.chat(request).await?;
    let mut has_ended = false;
    while let Some(event) = events.next().await {
        has_ended |= matches!(event?, ChatEvent::End { .. });
    }
    assert!(has_ended);
    Ok(())
}

#[tokio::test]
async fn what_the_device_refuses_once_is_had_when_an_idle_model_has_gone() {
    let node = refusing(1);
    answer(&node, "tiny-chat").await.unwrap();
    answer(&node, "tiny-qwen3").await.unwrap();
    let counts = node.counts();
    assert_eq!((counts.loads, counts.evictions), (2, 1));
    assert_eq!(counts.refused, [0; 5]);
    // What went comes back.
    answer(&node, "tiny-chat").await.unwrap();
    assert_eq!(node.counts().reloads, 1);
}

#[tokio::test]
async fn what_it_refuses_twice_is_an_error_of_its_own_and_others_go_on() {
    let node = refusing(2);
    answer(&node, "tiny-chat").await.unwrap();
    let error = answer(&node, "tiny-qwen3").await.unwrap_err();
    assert_eq!(error.kind, InferenceErrorKind::Busy, "{error}");
    assert!(error.message.starts_with("PV-GPU-EXHAUSTED") && error.retry_after_ms.is_some(), "{error}");
    answer(&node, "tiny-chat").await.unwrap();
}

#[tokio::test]
async fn with_nothing_to_give_up_it_is_not_tried_again() {
    let node = refusing(1);
    let error = answer(&node, "tiny-qwen3").await.unwrap_err();
    assert!(error.message.starts_with("PV-GPU-EXHAUSTED"), "{error}");
}
