//! A node with a device, and questions to it.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use provost_gpu_serve::{DeviceChoice, GpuConfig, GpuNode};
use provost_types::{ChatEvent, ChatRequest, Inference};

use crate::{MODELS, Outcome};

/// Of the capacity beside weights: what answers and their caches take.
const BESIDE: u64 = 256 << 20;

/// A node with room for so many of the models, whose weights the host keeps.
pub(crate) fn start(device: DeviceChoice, models: &Path, bytes: u64, room_for: u64) -> Outcome<Arc<GpuNode>> {
    let config = GpuConfig {
        models_dir: Some(models.to_owned()),
        device,
        host_copies_bytes: bytes.saturating_mul(MODELS.len() as u64 + 1),
        // Less than one more.
        capacity_bytes: bytes.saturating_mul(room_for).saturating_add(BESIDE.min(bytes / 2)),
        kv_cache_bytes: BESIDE / 4,
        // A switch is to be seen, not put off.
        residency_loads: 0,
        ..GpuConfig::default()
    };
    Ok(GpuNode::start(config)?)
}

/// Has an answer of so many tokens made, to its end.
pub(crate) async fn ask(node: &GpuNode, model: &str, max_tokens: u32) -> Outcome<()> {
    let request = ChatRequest::greedy("gpu-day", model, "go on", max_tokens);
    let mut events = node.chat(request).await?;
    while let Some(event) = events.next().await {
        if let ChatEvent::End { .. } = event? {
            return Ok(());
        }
    }
    Err("an answer had no end".into())
}
