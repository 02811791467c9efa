//! GGUF made from the fixtures: the same numbers, quantised or not, and tokenizers from metadata.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use common::{adapters, chat_model, decoder, reference, request, source, started, step, weights, worst_difference};
use provost_gpu_infer::{ModelSource, Segment};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;

/// Converts a fixture as llama.cpp's converter does: names, and for llama the order of rows
/// within each head of queries and keys.
fn tensors(fixture: &str, dtype: GgmlDType) -> Vec<(String, QTensor)> {
    let llama = fixture == "tiny-chat";
    let mut converted = Vec::new();
    for (name, tensor) in weights(fixture) {
        if !llama && name == "lm_head.weight" {
            continue;
        }
        let tensor = match name.as_str() {
            n if llama && n.ends_with("q_proj.weight") => interleave(&tensor, HEADS),
            n if llama && n.ends_with("k_proj.weight") => interleave(&tensor, KV_HEADS),
            _ => tensor,
        };
        let dtype = if tensor.rank() == 1 { GgmlDType::F32 } else { dtype };
        converted.push((gguf_name(&name), QTensor::quantize(&tensor, dtype).unwrap()));
    }
    converted
}

fn interleave(tensor: &Tensor, heads: usize) -> Tensor {
    let columns = tensor.dim(1).unwrap();
    tensor
        .reshape((heads, 2, HEAD_DIM / 2, columns))
        .unwrap()
        .transpose(1, 2)
        .unwrap()
        .contiguous()
        .unwrap()
        .reshape((heads * HEAD_DIM, columns))
        .unwrap()
}

fn gguf_name(name: &str) -> String {
    let parts = [
        ("model.embed_tokens.", "token_embd."),
        ("lm_head.", "output."),
        ("model.norm.", "output_norm."),
        ("model.layers.", "blk."),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    parts.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

fn metadata(arch: &str) -> Vec<(String, Value)> {
    let theta = if arch == "llama" { 10_000.0 } else { 1_000_000.0 };
    let eps = if arch == "llama" { 1e-5 } else { 1e-6 };
    let text = |s: &str| Value::String(s.to_owned());
    vec![
        ("general.architecture".to_owned(), text(arch)),
        (format!("{arch}.embedding_length"), Value::U32(64)),
        (format!("{arch}.feed_forward_length"), Value::U32(128)),
        (format!("{arch}.block_count"), Value::U32(2)),
        (format!("{arch}.attention.head_count"), Value::U32(HEADS as u32)),
        (format!("{arch}.attention.head_count_kv"), Value::U32(KV_HEADS as u32)),
        (format!("{arch}.attention.key_length"), Value::U32(HEAD_DIM as u32)),
        (format!("{arch}.context_length"), Value::U32(512)),
        (format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(eps)),
        (format!("{arch}.rope.freq_base"), Value::F32(theta)),
        (
            "tokenizer.chat_template".to_owned(),
            text("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"),
        ),
        ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(254)),
        ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(255)),
    ]
}

/// A byte-level vocabulary of the fixture's 256 ids.
fn byte_level_metadata() -> Vec<(String, Value)> {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(common::fixtures().join("tiny-chat/tokenizer.json")).unwrap()).unwrap();
    let mut tokens = vec![String::new(); 256];
    for (token, id) in json["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let types = (0..256).map(|id| Value::I32(if id >= 0xfa { 3 } else { 1 }));
    vec![
        ("tokenizer.ggml.model".to_owned(), Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre".to_owned(), Value::String("qwen2".to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), strings(&tokens)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(types.collect())),
        ("tokenizer.ggml.merges".to_owned(), Value::Array(Vec::new())),
    ]
}

fn strings(texts: &[String]) -> Value {
    Value::Array(texts.iter().cloned().map(Value::String).collect())
}

fn write_gguf(path: &Path, metadata: &[(String, Value)], tensors: &[(String, QTensor)]) {
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut file = std::fs::File::create(path).unwrap();
    write(&mut file, &metadata, &tensors).unwrap();
}

fn logits(path: &Path, ids: &[u32]) -> Vec<Vec<f32>> {
    let source = ModelSource::open("g", path).unwrap();
    let decoder = decoder(&source);
    let mut cache = decoder.cache(ids.len());
    decoder.forward_all(Segment { tokens: ids, cache: &mut cache }).unwrap()
}

fn with_bytes(arch: &str) -> Vec<(String, Value)> {
    let mut all = metadata(arch);
    all.extend(byte_level_metadata());
    all
}

#[test]
fn unquantised_gguf_agrees_with_transformers() {
    for (fixture, arch) in [("tiny-chat", "llama"), ("tiny-qwen3", "qwen3")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        write_gguf(&path, &with_bytes(arch), &tensors(fixture, GgmlDType::F32));
        let (ids, expected) = reference(arch);
        let worst = worst_difference(&logits(&path, &ids), &expected);
        assert!(worst < 1e-4, "{arch}: {worst}");
    }
}

/// The quantised file against a file that holds the same weights dequantised: only the
/// quantisation of activations inside the kernels differs.
#[test]
fn q8_gguf_agrees_with_its_dequantised_self() {
    for (fixture, arch) in [("tiny-chat", "llama"), ("tiny-qwen3", "qwen3")] {
        let folder = tempfile::tempdir().unwrap();
        let (q8, dense) = (folder.path().join("q8.gguf"), folder.path().join("dense.gguf"));
        let quantised = tensors(fixture, GgmlDType::Q8_0);
        let dequantised: Vec<(String, QTensor)> = quantised
            .iter()
            .map(|(name, tensor)| {
                let tensor = tensor.dequantize(&Device::Cpu).unwrap();
                (name.clone(), QTensor::quantize(&tensor, GgmlDType::F32).unwrap())
            })
            .collect();
        write_gguf(&q8, &with_bytes(arch), &quantised);
        write_gguf(&dense, &with_bytes(arch), &dequantised);
        let (ids, exact) = reference(arch);
        let (q8_logits, dense_logits) = (logits(&q8, &ids), logits(&dense, &ids));
        let scale = exact.iter().flatten().fold(0f32, |m, x| m.max(x.abs()));
        let kernels = worst_difference(&q8_logits, &dense_logits) / scale;
        let weights = worst_difference(&q8_logits, &exact) / scale;
        // Of weights nobody trained: each activation that is rounded the other way is some hundredths of what comes out.
        assert!(kernels < 0.05, "{arch}: kernels differ by {kernels}");
        assert!(weights > 1e-6 && weights < 0.05, "{arch}: quantisation costs {weights}");
        let (q8, dense) = (
            ModelSource::open("q", &q8).unwrap().weight_bytes(),
            ModelSource::open("d", &dense).unwrap().weight_bytes(),
        );
        assert!(q8 * 3 < dense, "{q8} {dense}");
    }
}

/// An adapter is written for the order of rows that `transformers` has, whatever the order in the file.
#[test]
fn an_adapter_over_gguf_is_the_same_as_over_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    adapters::write(&adapter, &adapters::config(), &adapters::tensors(1));
    let last = |source: &ModelSource, ids: &[u32]| {
        let (decoder, tuned) = (decoder(source), source.adapted("tuned", &adapter).unwrap());
        let adapter = tuned.load_adapter_on(&common::device()).unwrap();
        let mut cache = decoder.cache(ids.len());
        let mut segments = [Segment { tokens: ids, cache: &mut cache }];
        decoder.forward_with(&mut segments, &[adapter.as_ref()]).unwrap()
    };
    for (fixture, arch) in [("tiny-chat", "llama"), ("tiny-qwen3", "qwen3")] {
        let (ids, _) = reference(arch);
        let expected = last(&source(fixture), &ids);
        let largest = expected.iter().flatten().fold(0f32, |most, x| most.max(x.abs()));
        for (dtype, tolerance) in [(GgmlDType::F32, 1e-4), (GgmlDType::Q8_0, 0.1 * largest)] {
            let path = folder.path().join(format!("{arch}.gguf"));
            write_gguf(&path, &with_bytes(arch), &tensors(fixture, dtype));
            let worst = worst_difference(&last(&ModelSource::open("g", &path).unwrap(), &ids), &expected);
            assert!(worst < tolerance, "{arch} {dtype:?}: {worst}");
        }
    }
}

#[test]
fn a_gguf_file_chats_with_the_tokenizer_in_its_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    write_gguf(&path, &with_bytes("llama"), &tensors("tiny-chat", GgmlDType::Q8_0));
    let source = ModelSource::open("m", &path).unwrap();
    assert_eq!(source.info().architecture, "llama");
    assert_eq!(source.info().context_tokens, 512);
    let text = source.load_chat_text().unwrap();
    let prompt = text.prompt(&request("héllo", 1).messages).unwrap();
    let mut expected = vec![254];
    expected.extend("héllo".bytes().map(u32::from));
    assert_eq!(prompt, expected);
    assert!(text.ends(255) && !text.ends(254));
    assert_eq!(text.plain_prompt("hi").unwrap(), [104, 105]);

    let model = chat_model(&source);
    let mut generation = started(&model, &request("hi", 5));
    let mut steps = 0;
    loop {
        let step = step(&model, &mut generation);
        steps += 1;
        if step.finish.is_some() {
            break;
        }
    }
    assert!(steps <= 5);
}

#[test]
fn sentencepiece_metadata_makes_the_pieces_that_scores_prefer() {
    let pieces = ["<unk>", "<s>", "</s>", "\u{2581}", "h", "i", "hi", "\u{2581}hi", "\u{2581}h"];
    let mut tokens: Vec<String> = pieces.iter().map(|p| (*p).to_owned()).collect();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let mut scores = vec![0.0, 0.0, 0.0, -5.0, -4.0, -4.0, -2.0, -1.0, -3.0];
    scores.resize(tokens.len(), 0.0);
    let mut types = vec![2, 3, 3, 1, 1, 1, 1, 1, 1];
    types.resize(tokens.len(), 6);
    let mut all = metadata("llama");
    all.extend([
        ("tokenizer.ggml.model".to_owned(), Value::String("llama".to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), strings(&tokens)),
        ("tokenizer.ggml.scores".to_owned(), Value::Array(scores.into_iter().map(Value::F32).collect())),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(types.into_iter().map(Value::I32).collect())),
        ("tokenizer.ggml.unknown_token_id".to_owned(), Value::U32(0)),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    write_gguf(&path, &all, &tensors("tiny-chat", GgmlDType::F32));
    let text = Arc::new(ModelSource::open("m", &path).unwrap().load_chat_text().unwrap());
    let first_byte = pieces.len() as u32;
    // h+i scores better than ▁+h; then ▁+hi.
    assert_eq!(text.encode("hi").unwrap(), [7]);
    assert_eq!(text.encode("hi é").unwrap(), [7, 3, first_byte + 0xc3, first_byte + 0xa9]);
    // Vocabularies of pieces begin texts with a token of their own.
    assert_eq!(text.plain_prompt("hi").unwrap(), [254, 7]);

    let mut incremental = provost_gpu_infer::IncrementalText::default();
    let mut shown = Vec::new();
    for token in [7, 3, first_byte + 0xc3, first_byte + 0xa9] {
        shown.push(incremental.push(&text, token));
    }
    assert_eq!(shown, ["hi", " ", "", "é"]);
}

#[test]
fn damaged_gguf_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    write_gguf(&path, &with_bytes("llama"), &tensors("tiny-chat", GgmlDType::F32));
    let whole = std::fs::read(&path).unwrap();
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = ModelSource::open("m", &path).and_then(|source| source.load_network().map(|_| ())).expect_err(what);
        let text = error.to_string();
        assert!(text.starts_with("PV-MODEL-MALFORMED: model `m`: m.gguf"), "{what}: {text}");
        assert_eq!(text.lines().count(), 1, "{what}: {text}");
    };
    check(&[], "empty");
    check(b"GGUF", "magic only");
    check(b"not a gguf file at all", "wrong magic");
    check(&whole[..whole.len() / 2], "half a file");
    check(&whole[..whole.len() - 64], "last bytes missing");
    for at in (0..2000).step_by(97) {
        let mut broken = whole.clone();
        broken[at] ^= 0xff;
        std::fs::write(&path, &broken).unwrap();
        // Any answer but a panic will do: some flips hit names that nobody reads.
        let _ = ModelSource::open("m", &path).and_then(|source| source.load_network());
    }

    let mut missing = tensors("tiny-chat", GgmlDType::F32);
    missing.retain(|(name, _)| name != "blk.1.ffn_up.weight");
    write_gguf(&path, &with_bytes("llama"), &missing);
    let error = ModelSource::open("m", &path).unwrap().load_network().unwrap_err();
    assert!(error.to_string().contains("`blk.1.ffn_up.weight` is missing"), "{error}");

    let mut wrong = tensors("tiny-chat", GgmlDType::F32);
    for (name, tensor) in &mut wrong {
        if name == "blk.0.ffn_up.weight" {
            let zeros = Tensor::zeros((32, 64), DType::F32, &Device::Cpu).unwrap();
            *tensor = QTensor::quantize(&zeros, GgmlDType::F32).unwrap();
        }
    }
    write_gguf(&path, &with_bytes("llama"), &wrong);
    let error = ModelSource::open("m", &path).unwrap().load_network().unwrap_err();
    assert!(error.to_string().contains("[32, 64]"), "{error}");
}
