//! Models of random weights for nodes under test, the same each time: Llama's and BERT's shapes over a vocabulary of bytes.
//!
//! What they say means nothing; what they cost is what models of their size cost. Format of the weights:
//! <https://huggingface.co/docs/safetensors>.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use serde_json::{Map, Value, json};

/// Weights are there as a file.
const WEIGHTS: &str = "model.safetensors";
/// One token a byte.
const VOCABULARY: usize = 256;
const HIDDEN: usize = 256;
const WIDE: usize = 1024;
const HEADS: usize = 4;
/// The most tokens of a request.
const CONTEXT: usize = 256;
/// Largest weight.
const SPREAD: f32 = 0.02;
/// Tokens of conversations, in place of bytes that UTF-8 never has.
const SPECIAL: [(usize, &str); 5] =
    [(0xFB, "<|assistant|>"), (0xFC, "<|user|>"), (0xFD, "<|system|>"), (BEGIN, "<|begin|>"), (END, "<|end|>")];
const BEGIN: usize = 0xFE;
const END: usize = 0xFF;
const TEMPLATE: &str = "{{- bos_token -}}\n\
                        {%- for message in messages -%}\n\
                        {{- '<|' + message.role + '|>' + message.content + eos_token -}}\n\
                        {%- endfor -%}\n\
                        {%- if add_generation_prompt -%}\n\
                        {{- '<|assistant|>' -}}\n\
                        {%- endif -%}\n";

/// The tensors of a model with their shapes.
type Tensors = Vec<(String, Vec<usize>)>;

/// Writes a chat model of so many layers, 4 MiB each, into a new folder; gives the bytes of its weights.
///
/// # Errors
/// When it cannot be written.
pub fn write_chat(folder: &Path, layers: usize, seed: u64) -> io::Result<u64> {
    let config = json!({ "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": WIDE,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "head_dim": HIDDEN / HEADS, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": false, "bos_token_id": BEGIN, "eos_token_id": END });
    std::fs::create_dir_all(folder)?;
    let texts = json!({ "bos_token": special(BEGIN), "eos_token": special(END) });
    std::fs::write(folder.join("tokenizer_config.json"), texts.to_string())?;
    std::fs::write(folder.join("chat_template.jinja"), TEMPLATE)?;
    write(folder, &config, &chat_tensors(layers), seed)
}

/// Writes an embedding model of so many layers, 3 MiB each, into a new folder; gives the bytes of its weights.
///
/// # Errors
/// When it cannot be written.
pub fn write_embedding(folder: &Path, layers: usize, seed: u64) -> io::Result<u64> {
    let config = json!({ "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": WIDE,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT,
        "type_vocab_size": 2, "hidden_act": "gelu" });
    std::fs::create_dir_all(folder)?;
    write(folder, &config, &embedding_tensors(layers), seed)
}

/// The next number of a series (Marsaglia's xorshift); `state` is never 0.
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The state that a seed begins with.
pub fn begin(seed: u64) -> u64 {
    0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed.wrapping_mul(2).wrapping_add(1))
}

fn write(folder: &Path, config: &Value, tensors: &[(String, Vec<usize>)], seed: u64) -> io::Result<u64> {
    std::fs::write(folder.join("config.json"), config.to_string())?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
    write_weights(&folder.join(WEIGHTS), tensors, seed)
}

fn chat_tensors(layers: usize) -> Tensors {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..layers {
        let mut push = |name: &str, shape: Vec<usize>| {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        };
        push("input_layernorm", vec![HIDDEN]);
        push("post_attention_layernorm", vec![HIDDEN]);
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            push(&format!("self_attn.{name}"), vec![HIDDEN, HIDDEN]);
        }
        push("mlp.gate_proj", vec![WIDE, HIDDEN]);
        push("mlp.up_proj", vec![WIDE, HIDDEN]);
        push("mlp.down_proj", vec![HIDDEN, WIDE]);
    }
    tensors
}

fn embedding_tensors(layers: usize) -> Tensors {
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![CONTEXT, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, HIDDEN]),
    ];
    let mut norms = vec!["embeddings".to_owned()];
    for layer in 0..layers {
        let layer = format!("encoder.layer.{layer}");
        for (name, inputs, outputs) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", HIDDEN, WIDE),
            ("output.dense", WIDE, HIDDEN),
        ] {
            tensors.push((format!("{layer}.{name}.weight"), vec![outputs, inputs]));
            tensors.push((format!("{layer}.{name}.bias"), vec![outputs]));
        }
        norms.extend([format!("{layer}.attention.output"), format!("{layer}.output")]);
    }
    for norm in norms {
        tensors.push((format!("{norm}.LayerNorm.weight"), vec![HIDDEN]));
        tensors.push((format!("{norm}.LayerNorm.bias"), vec![HIDDEN]));
    }
    tensors
}

fn write_weights(path: &Path, tensors: &[(String, Vec<usize>)], seed: u64) -> io::Result<u64> {
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
    let mut state = begin(seed);
    for (name, shape) in tensors {
        let is_scale = name.to_ascii_lowercase().contains("norm") && name.ends_with("weight");
        for _ in 0..shape.iter().product::<usize>() {
            let value = if is_scale { 1.0 } else { weight(&mut state) };
            file.write_all(&value.to_le_bytes())?;
        }
    }
    file.flush()?;
    Ok(end as u64)
}

fn weight(state: &mut u64) -> f32 {
    // The 24 bits that such a float has.
    let unit = (next(state) >> 40) as f32 / (1_u64 << 24) as f32;
    (unit - 0.5) * 2.0 * SPREAD
}

/// A tokenizer of bytes, as `tokenizers` reads it.
fn tokenizer() -> Value {
    let vocabulary: Map<String, Value> = (0..VOCABULARY).map(|byte| (token(byte), json!(byte))).collect();
    let added = SPECIAL.map(|(id, content)| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    });
    let level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] } })
}

fn special(id: usize) -> &'static str {
    SPECIAL.iter().find(|(of, _)| *of == id).map_or("", |(_, text)| text)
}

/// How a vocabulary of bytes writes a byte: as itself where it can be seen, else as a letter beyond the bytes.
fn token(byte: usize) -> String {
    let text = special(byte);
    if !text.is_empty() {
        return text.to_owned();
    }
    let is_seen = |byte: usize| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = if is_seen(byte) { byte } else { 256 + (0..byte).filter(|before| !is_seen(*before)).count() };
    u32::try_from(code).ok().and_then(char::from_u32).map(String::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_token_has_a_text_of_its_own_as_byte_level_tokenizers_write_it() {
        let tokens: BTreeSet<String> = (0..VOCABULARY).map(token).collect();
        assert!(tokens.len() == VOCABULARY && !tokens.contains(""), "{tokens:?}");
        for (byte, expect) in [(0x41, "A"), (0x20, "\u{120}"), (0x0A, "\u{10a}"), (0xAD, "\u{143}"), (END, "<|end|>")] {
            assert_eq!(token(byte), expect);
        }
    }

    #[test]
    fn a_seed_makes_the_same_weights_and_another_one_others() {
        let dir = tempfile::tempdir().unwrap();
        let weights = |name: &str, seed: u64| {
            let folder = dir.path().join(name);
            let bytes = write_chat(&folder, 1, seed).unwrap();
            let file = std::fs::read(folder.join(WEIGHTS)).unwrap();
            assert!((bytes..bytes + (16 << 10)).contains(&(file.len() as u64)), "{bytes} of {}", file.len());
            file
        };
        let one = weights("one", 1);
        assert!(weights("again", 1) == one && weights("other", 2) != one);
    }
}
