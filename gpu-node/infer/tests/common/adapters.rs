//! Adapters with arbitrary weights for the fixtures, and the same as a model with merged weights.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::{copy_fixture, weights};

/// Layers of the fixtures.
const LAYERS: usize = 2;
/// Targets with the widths of what goes in and comes out, as the fixtures have them.
pub const TARGETS: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", 64, 64),
    ("self_attn.k_proj", 64, 32),
    ("self_attn.v_proj", 64, 32),
    ("self_attn.o_proj", 64, 64),
    ("mlp.gate_proj", 64, 128),
    ("mlp.up_proj", 64, 128),
    ("mlp.down_proj", 128, 64),
];
pub const RANK: usize = 4;
pub const ALPHA: f64 = 6.0;

/// The configuration as PEFT writes it.
pub fn config() -> Value {
    let targets: Vec<&str> = TARGETS.iter().map(|(path, _, _)| path.rsplit('.').next().unwrap()).collect();
    json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "target_modules": targets,
        "bias": "none", "fan_in_fan_out": false, "modules_to_save": null, "use_dora": false, "use_rslora": false,
    })
}

/// The tensors of an adapter; a seed of 0 leaves B zero.
pub fn tensors(seed: usize) -> HashMap<String, Tensor> {
    let mut tensors = HashMap::new();
    for layer in 0..LAYERS {
        for (index, (path, inputs, outputs)) in TARGETS.iter().enumerate() {
            let name = |part: &str| format!("base_model.model.model.layers.{layer}.{path}.{part}.weight");
            let salt = seed * 1009 + layer * 101 + index;
            let b = matrix(*outputs, RANK, salt + 31, if seed == 0 { 0.0 } else { 0.4 });
            tensors.insert(name("lora_A"), matrix(RANK, *inputs, salt, 0.4));
            tensors.insert(name("lora_B"), b);
        }
    }
    tensors
}

fn matrix(rows: usize, columns: usize, salt: usize, width: f32) -> Tensor {
    let value = |at: usize| (((at * 7919 + salt * 104_729) % 1000) as f32 / 1000.0 - 0.5) * width;
    Tensor::from_vec((0..rows * columns).map(value).collect::<Vec<_>>(), (rows, columns), &Device::Cpu).unwrap()
}

pub fn write(directory: &Path, config: &Value, tensors: &HashMap<String, Tensor>) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("adapter_config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(tensors, directory.join("adapter_model.safetensors")).unwrap();
}

/// A copy of a fixture whose weights have an adapter merged into them.
pub fn write_merged(fixture: &str, adapter: &HashMap<String, Tensor>, directory: &Path) {
    copy_fixture(fixture, directory);
    let mut merged = weights(fixture);
    for layer in 0..LAYERS {
        for (path, _, _) in TARGETS {
            let part = |part: &str| &adapter[&format!("base_model.model.model.layers.{layer}.{path}.{part}.weight")];
            let delta = (part("lora_B").matmul(part("lora_A")).unwrap() * (ALPHA / RANK as f64)).unwrap();
            let weight = merged.get_mut(&format!("model.layers.{layer}.{path}.weight")).unwrap();
            *weight = (&*weight + delta).unwrap();
        }
    }
    candle_core::safetensors::save(&merged, directory.join("model.safetensors")).unwrap();
}
