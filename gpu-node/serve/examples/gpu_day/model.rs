//! Models of random weights, as large as one likes: Llama's shape with the tokenizer of a fixture.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Outcome;

/// What a model has beside its weights.
const BESIDE: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
const VOCABULARY: usize = 256;
const HEAD: usize = 64;
/// Largest weight.
const SPREAD: f32 = 0.02;

/// Writes a model of about so many MiB into a folder.
pub(crate) fn write(folder: &Path, mib: u64, seed: usize) -> Outcome<()> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures/tiny-chat");
    std::fs::create_dir_all(folder)?;
    for name in BESIDE {
        std::fs::copy(fixture.join(name), folder.join(name))?;
    }
    // 256 MiB a layer, or 4 where that is too much.
    let (hidden, of_layer) = if mib >= 256 { (2048, 256) } else { (256, 4) };
    let layers = usize::try_from(mib / of_layer)?.max(1);
    let mut config: Value = serde_json::from_slice(&std::fs::read(fixture.join("config.json"))?)?;
    config["hidden_size"] = json!(hidden);
    config["intermediate_size"] = json!(4 * hidden);
    config["num_hidden_layers"] = json!(layers);
    config["num_attention_heads"] = json!(hidden / HEAD);
    config["num_key_value_heads"] = json!(hidden / HEAD);
    config["head_dim"] = json!(HEAD);
    std::fs::write(folder.join("config.json"), config.to_string())?;
    write_weights(&folder.join("model.safetensors"), &tensors(hidden, layers), seed)
}

fn tensors(hidden: usize, layers: usize) -> Vec<(String, Vec<usize>)> {
    let (square, wide, narrow) = (vec![hidden, hidden], vec![4 * hidden, hidden], vec![hidden, 4 * hidden]);
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, hidden]),
        ("lm_head.weight".to_owned(), vec![VOCABULARY, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let mut push = |name: &str, shape: &[usize]| {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        };
        push("input_layernorm", &[hidden]);
        push("post_attention_layernorm", &[hidden]);
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            push(&format!("self_attn.{name}"), &square);
        }
        push("mlp.gate_proj", &wide);
        push("mlp.up_proj", &wide);
        push("mlp.down_proj", &narrow);
    }
    tensors
}

/// The format: <https://huggingface.co/docs/safetensors>.
fn write_weights(path: &Path, tensors: &[(String, Vec<usize>)], seed: usize) -> Outcome<()> {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_add(seed as u64);
    for (name, shape) in tensors {
        for _ in 0..shape.iter().product::<usize>() {
            let value = if name.contains("norm") { 1.0 } else { random(&mut state) };
            file.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(file.flush()?)
}

/// Marsaglia's xorshift.
fn random(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    #[allow(clippy::cast_precision_loss, reason = "24 bits fit")]
    let unit = (*state >> 40) as f32 / (1u64 << 24) as f32;
    (unit - 0.5) * 2.0 * SPREAD
}
