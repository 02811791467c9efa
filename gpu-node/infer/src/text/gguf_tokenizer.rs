//! A tokenizer from GGUF metadata.
//!
//! Two kinds are common: `gpt2` (byte-level BPE with merges; the splitting rule is named by
//! `tokenizer.ggml.pre`) and `llama` (SentencePiece: pieces with scores). Both are rewritten as a
//! `tokenizer.json` document, the one form whose behaviour is defined by the tokenizers crate.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use serde_json::{Value as Json, json};
use tokenizers::Tokenizer;

use crate::error::InferError;
use crate::gguf::{GgufFile, whole};

/// Kinds of token in `tokenizer.ggml.token_type`.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Builds the tokenizer that the metadata describes; `None` when there is none.
pub(crate) fn tokenizer_of_gguf(gguf: &GgufFile) -> Result<Option<Tokenizer>, InferError> {
    let Some(Value::String(kind)) = gguf.find("tokenizer.ggml.model") else {
        return Ok(None);
    };
    let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
    let document = match kind.as_str() {
        "gpt2" => byte_level(gguf, &tokens)?,
        "llama" => sentence_piece(gguf, &tokens)?,
        other => {
            return Err(gguf
                .at()
                .unsupported(format!("tokenizer `{other}` is not supported; put a tokenizer.json beside the file")));
        }
    };
    let document = serde_json::to_vec(&document).map_err(|e| gguf.at().malformed(e))?;
    Tokenizer::from_bytes(document).map(Some).map_err(|error| gguf.at().malformed(format!("tokenizer: {error}")))
}

/// The token that the metadata puts before a text; where it does not say whether there is one, as llama.cpp has it.
pub(crate) fn begins_of_gguf(gguf: &GgufFile) -> Vec<u32> {
    let is = |key: &str, names: &[&str]| match gguf.find(key) {
        Some(Value::String(name)) => names.contains(&name.as_str()),
        _ => false,
    };
    let has_one = match gguf.find("tokenizer.ggml.add_bos_token") {
        Some(Value::Bool(adds)) => *adds,
        _ => is("tokenizer.ggml.model", &["llama"]) || is("tokenizer.ggml.pre", &["llama-bpe", "llama3", "llama-v3"]),
    };
    let token = gguf.find("tokenizer.ggml.bos_token_id").and_then(whole).and_then(|id| u32::try_from(id).ok());
    token.filter(|_| has_one).into_iter().collect()
}

fn byte_level(gguf: &GgufFile, tokens: &[String]) -> Result<Json, InferError> {
    let merges: Vec<Json> = texts(gguf, "tokenizer.ggml.merges")?
        .iter()
        .filter_map(|merge| merge.split_once(' '))
        .map(|(left, right)| json!([left, right]))
        .collect();
    let pre = match gguf.find("tokenizer.ggml.pre") {
        Some(Value::String(pre)) => pre.as_str(),
        _ => "gpt-2",
    };
    let (normalizer, split) = match pre {
        "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" => (Json::Null, Some(LLAMA3_SPLIT)),
        "qwen2" | "deepseek-r1-qwen" => (json!({"type": "NFC"}), Some(QWEN2_SPLIT)),
        "gpt-2" | "gpt2" | "default" => (Json::Null, None),
        other => {
            return Err(gguf
                .at()
                .unsupported(format!("tokenizer rule `{other}` is not known; put a tokenizer.json beside the file")));
        }
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": split.is_none()});
    let pre_tokenizer = match split {
        None => bytes.clone(),
        Some(regex) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            bytes,
        ]}),
    };
    let model = json!({"type": "BPE", "vocab": vocabulary(tokens), "merges": merges,
        "ignore_merges": split == Some(LLAMA3_SPLIT)});
    Ok(document(added_tokens(gguf, tokens), normalizer, pre_tokenizer, bytes, model))
}

fn sentence_piece(gguf: &GgufFile, tokens: &[String]) -> Result<Json, InferError> {
    let scores = scores(gguf, tokens.len())?;
    let normalizer = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u{2581}"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
    ]});
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    let unknown = gguf
        .find("tokenizer.ggml.unknown_token_id")
        .and_then(whole)
        .and_then(|id| tokens.get(usize::try_from(id).ok()?));
    let model = json!({"type": "BPE", "vocab": vocabulary(tokens),
        "merges": merges_of_pieces(tokens, &scores), "unk_token": unknown,
        "fuse_unk": true, "byte_fallback": true});
    let added = added_tokens(gguf, tokens);
    Ok(document(added, normalizer, Json::Null, decoder, model))
}

fn document(added: Json, normalizer: Json, pre: Json, decoder: Json, model: Json) -> Json {
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": null,
        "decoder": decoder, "model": model})
}

/// SentencePiece joins the adjacent pieces whose union scores best. As merges: every way to split
/// a piece into two pieces, ordered by the piece's score.
fn merges_of_pieces(tokens: &[String], scores: &[f32]) -> Vec<Json> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges: Vec<(usize, usize, usize)> = Vec::new();
    for (whole_id, token) in tokens.iter().enumerate() {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(left), Some(right)) = (ids.get(left), ids.get(right)) {
                merges.push((whole_id, *left, *right));
            }
        }
    }
    merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]).then((a.1, a.2).cmp(&(b.1, b.2))));
    merges.into_iter().map(|(_, left, right)| json!([tokens[left], tokens[right]])).collect()
}

fn vocabulary(tokens: &[String]) -> serde_json::Map<String, Json> {
    tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect()
}

fn added_tokens(gguf: &GgufFile, tokens: &[String]) -> Json {
    let Some(Value::Array(types)) = gguf.find("tokenizer.ggml.token_type") else {
        return json!([]);
    };
    let added = types.iter().zip(tokens).enumerate().filter_map(|(id, (kind, token))| {
        let kind = whole(kind)?;
        (kind == CONTROL || kind == USER_DEFINED).then(|| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": kind == CONTROL})
        })
    });
    Json::Array(added.collect())
}

fn scores(gguf: &GgufFile, count: usize) -> Result<Vec<f32>, InferError> {
    let Some(Value::Array(values)) = gguf.find("tokenizer.ggml.scores") else {
        return Err(gguf.at().malformed("metadata `tokenizer.ggml.scores` is missing"));
    };
    let scores: Vec<f32> = values.iter().filter_map(|value| value.to_f32().ok()).collect();
    if scores.len() != count {
        return Err(gguf.at().malformed("tokens and scores differ in number"));
    }
    Ok(scores)
}

fn texts(gguf: &GgufFile, key: &str) -> Result<Vec<String>, InferError> {
    let Some(Value::Array(values)) = gguf.find(key) else {
        return Err(gguf.at().malformed(format!("metadata `{key}` is missing")));
    };
    let texts: Vec<String> = values.iter().filter_map(|value| value.to_string().ok().cloned()).collect();
    if texts.len() != values.len() {
        return Err(gguf.at().malformed(format!("metadata `{key}` holds something that is not text")));
    }
    Ok(texts)
}
