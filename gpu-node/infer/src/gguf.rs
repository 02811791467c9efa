//! GGUF files: metadata, tokenizer tables and quantised weights of llama and qwen3.
//!
//! The parser is candle's; this module checks what it found against what the network needs.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};

use crate::config::{DecoderConfig, DecoderFamily};
use crate::decoder::{Decoder, DecoderWeights, HeadNorms, Layer};
use crate::device::Place;
use crate::error::{FileContext, InferError};
use crate::linear::{Linear, TokenTable};
use crate::network::Network;
use crate::packed::Layouts;
use crate::rope::{RopeConfig, RopeScaling};
use crate::safetensors_file::most_of;

/// Vectors of tokens, and the output where it is not the same.
const TOKENS: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";
/// Largest alignment of tensor data that is believed.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// A GGUF file whose header has been read.
pub(crate) struct GgufFile {
    content: Content,
    at: FileContext,
}

impl GgufFile {
    /// Reads the header only.
    pub(crate) fn open(model: &str, path: &Path) -> Result<Self, InferError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let at = FileContext::new(model, &name);
        let file = File::open(path).map_err(|e| at.unreadable(e))?;
        let file_bytes = file.metadata().map_err(|e| at.unreadable(e))?.len();
        let content = Content::read(&mut BufReader::new(file)).map_err(|e| at.malformed(first_line(&e)))?;
        let opened = Self { content, at };
        opened.check_tensors(file_bytes)?;
        Ok(opened)
    }

    /// Shape of the network.
    pub(crate) fn config(&self) -> Result<DecoderConfig, InferError> {
        let family = match self.string("general.architecture")? {
            "llama" => DecoderFamily::Llama,
            "qwen3" => DecoderFamily::Qwen3,
            other => {
                return Err(self
                    .at
                    .unsupported(format!("architecture `{other}` is not supported in GGUF; supported: llama, qwen3")));
            }
        };
        let arch = family.name();
        let hidden = self.size(&format!("{arch}.embedding_length"))?;
        let heads = self.size(&format!("{arch}.attention.head_count"))?;
        let head_dim = match self.find(&format!("{arch}.attention.key_length")) {
            Some(_) => self.size(&format!("{arch}.attention.key_length"))?,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        let kv_heads = match self.find(&format!("{arch}.attention.head_count_kv")) {
            Some(_) => self.size(&format!("{arch}.attention.head_count_kv"))?,
            None => heads,
        };
        let vocabulary = match self.content.tensor_infos.get(TOKENS) {
            Some(info) => info.shape.dims().first().copied().unwrap_or(0),
            None => return Err(self.at.malformed("tensor `token_embd.weight` is missing")),
        };
        let config = DecoderConfig {
            family,
            vocabulary,
            hidden,
            intermediate: self.size(&format!("{arch}.feed_forward_length"))?,
            layers: self.size(&format!("{arch}.block_count"))?,
            heads,
            kv_heads,
            head_dim,
            context: self.size(&format!("{arch}.context_length"))?,
            norm_eps: self.float(&format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5)?,
            rope: RopeConfig {
                theta: self.float(&format!("{arch}.rope.freq_base"), 10_000.0)?,
                scaling: self.scaling(arch)?,
                interleaved: family == DecoderFamily::Llama,
                head_dim,
            },
            tied: !self.content.tensor_infos.contains_key(OUTPUT),
            attention_bias: false,
            mlp_bias: false,
            end_tokens: self.end_tokens(),
        };
        config.check(&self.at)?;
        Ok(config)
    }

    /// Bytes of all tensors once loaded: quantised ones as they are, the others as `f32`.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.content
            .tensor_infos
            .values()
            .map(|info| {
                let elements = info.shape.elem_count() as u64;
                match info.ggml_dtype {
                    GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => elements * size_of::<f32>() as u64,
                    quantised => elements / quantised.block_size() as u64 * quantised.type_size() as u64,
                }
            })
            .sum()
    }

    /// Bytes of what is kept beside them once they were multiplied by. A token table that is not the output too is only looked
    /// up in.
    pub(crate) fn packed_bytes(&self, layouts: Layouts) -> u64 {
        let tensors = &self.content.tensor_infos;
        let is_tied = !tensors.contains_key(OUTPUT);
        let multiplied = tensors.iter().filter(|(name, _)| is_tied || name.as_str() != TOKENS);
        multiplied
            .map(|(_, info)| match info.shape.dims() {
                [rows, columns] => layouts.bytes(info.ggml_dtype, *rows, *columns),
                _ => 0,
            })
            .sum()
    }

    /// What most of the weights are stored as, such as `q4_0`.
    pub(crate) fn dtype(&self) -> String {
        let infos = self.content.tensor_infos.values();
        most_of(infos.map(|info| (format!("{:?}", info.ggml_dtype), info.shape.elem_count())))
    }

    /// A metadata value.
    pub(crate) fn find(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    pub(crate) fn at(&self) -> &FileContext {
        &self.at
    }

    /// Reads the weights.
    pub(crate) fn load(&self, path: &Path, place: &Place) -> Result<Network, InferError> {
        let mut config = self.config()?;
        let file = File::open(path).map_err(|e| self.at.unreadable(e))?;
        let mut reader = WeightReader { gguf: self, file: BufReader::new(file), device: place.device() };
        if self.content.tensor_infos.contains_key("rope_freqs.weight") {
            let divisors = reader.vector("rope_freqs.weight", config.head_dim / 2)?;
            let divisors = divisors.to_vec1().map_err(|e| self.at.malformed(e))?;
            config.rope.scaling = RopeScaling::Divisors(divisors);
            config.rope.check(&self.at)?;
        }
        let weights = reader.decoder(&config)?;
        let decoder = Decoder::new(config, weights, place.clone());
        Ok(Network::Decoder(Arc::new(decoder)))
    }

    fn scaling(&self, arch: &str) -> Result<RopeScaling, InferError> {
        match self.find(&format!("{arch}.rope.scaling.type")) {
            None => Ok(RopeScaling::None),
            Some(Value::String(kind)) if kind == "none" => Ok(RopeScaling::None),
            Some(Value::String(kind)) if kind == "linear" => {
                let factor = self.float(&format!("{arch}.rope.scaling.factor"), 1.0)?;
                Ok(RopeScaling::Linear(factor))
            }
            Some(other) => Err(self.at.unsupported(format!("rope scaling {other:?} is not supported"))),
        }
    }

    fn end_tokens(&self) -> Vec<u32> {
        ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"]
            .iter()
            .filter_map(|key| self.find(key).and_then(whole))
            .filter_map(|id| u32::try_from(id).ok())
            .collect()
    }

    /// Every tensor must lie within the file, before anything is allocated for it.
    fn check_tensors(&self, file_bytes: u64) -> Result<(), InferError> {
        if let Some(alignment) = self.find("general.alignment").and_then(whole)
            && (alignment == 0 || alignment > MAX_ALIGNMENT)
        {
            return Err(self.at.malformed(format!("alignment {alignment} is out of range")));
        }
        for (name, info) in &self.content.tensor_infos {
            let elements = info.shape.dims().iter().try_fold(1u64, |product, dim| product.checked_mul(*dim as u64));
            let block = info.ggml_dtype.block_size() as u64;
            let end = elements
                .map(|elements| elements / block)
                .and_then(|blocks| blocks.checked_mul(info.ggml_dtype.type_size() as u64))
                .and_then(|bytes| bytes.checked_add(info.offset))
                .and_then(|end| end.checked_add(self.content.tensor_data_offset));
            if end.is_none_or(|end| end > file_bytes) {
                return Err(self.at.malformed(format!("the file is truncated: tensor `{name}` lies outside it")));
            }
        }
        Ok(())
    }

    fn string(&self, key: &str) -> Result<&str, InferError> {
        match self.find(key) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(self.at.malformed(format!("metadata `{key}` is missing or not a text"))),
        }
    }

    fn size(&self, key: &str) -> Result<usize, InferError> {
        self.find(key).and_then(whole).and_then(|value| usize::try_from(value).ok()).ok_or_else(|| {
            let cause = format!("metadata `{key}` is missing or not a whole number");
            self.at.malformed(cause)
        })
    }

    fn float(&self, key: &str, default: f32) -> Result<f32, InferError> {
        match self.find(key) {
            None => Ok(default),
            Some(Value::F32(value)) => Ok(*value),
            Some(Value::F64(value)) => Ok(*value as f32),
            Some(_) => Err(self.at.malformed(format!("metadata `{key}` is not a number"))),
        }
    }
}

/// Any of the format's whole-number types.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::U8(v) => Some(u64::from(*v)),
        Value::U16(v) => Some(u64::from(*v)),
        Value::U32(v) => Some(u64::from(*v)),
        Value::U64(v) => Some(*v),
        Value::I8(v) => u64::try_from(*v).ok(),
        Value::I16(v) => u64::try_from(*v).ok(),
        Value::I32(v) => u64::try_from(*v).ok(),
        Value::I64(v) => u64::try_from(*v).ok(),
        _ => None,
    }
}

struct WeightReader<'a> {
    gguf: &'a GgufFile,
    file: BufReader<File>,
    device: &'a Device,
}

impl WeightReader<'_> {
    fn decoder(&mut self, config: &DecoderConfig) -> Result<DecoderWeights, InferError> {
        let table = self.matrix(TOKENS, config.vocabulary, config.hidden)?;
        let tokens = TokenTable::new(table.clone());
        let output = match config.tied {
            true => self.quantised(table)?,
            false => self.linear(OUTPUT, config.hidden, config.vocabulary)?,
        };
        let layers = (0..config.layers).map(|index| self.layer(config, index)).collect::<Result<_, _>>()?;
        Ok(DecoderWeights { tokens, layers, norm: self.vector("output_norm.weight", config.hidden)?, output })
    }

    fn layer(&mut self, config: &DecoderConfig, index: usize) -> Result<Layer, InferError> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (hidden, wide) = (config.hidden, config.intermediate);
        let queries = config.heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        let head_norms = match config.family {
            DecoderFamily::Llama => None,
            DecoderFamily::Qwen3 => Some(HeadNorms {
                query: self.vector(&name("attn_q_norm"), config.head_dim)?,
                key: self.vector(&name("attn_k_norm"), config.head_dim)?,
            }),
        };
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm"), hidden)?,
            query: self.linear(&name("attn_q"), hidden, queries)?,
            key: self.linear(&name("attn_k"), hidden, keys)?,
            value: self.linear(&name("attn_v"), hidden, keys)?,
            output: self.linear(&name("attn_output"), queries, hidden)?,
            head_norms,
            mlp_norm: self.vector(&name("ffn_norm"), hidden)?,
            gate: self.linear(&name("ffn_gate"), hidden, wide)?,
            up: self.linear(&name("ffn_up"), hidden, wide)?,
            down: self.linear(&name("ffn_down"), wide, hidden)?,
        })
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, InferError> {
        let weight = self.matrix(name, outputs, inputs)?;
        self.quantised(weight)
    }

    fn quantised(&self, weight: QMatMul) -> Result<Linear, InferError> {
        Linear::quantised(weight).map_err(|e| unread(&self.gguf.at, &e))
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<QMatMul, InferError> {
        let tensor = self.tensor(name, &[rows, columns])?;
        QMatMul::from_qtensor(tensor).map_err(|e| unread(&self.gguf.at, &e))
    }

    fn vector(&mut self, name: &str, size: usize) -> Result<candle_core::Tensor, InferError> {
        let tensor = self.tensor(name, &[size])?;
        tensor.dequantize(self.device).map_err(|e| unread(&self.gguf.at, &e))
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<QTensor, InferError> {
        let at = &self.gguf.at;
        let Some(info) = self.gguf.content.tensor_infos.get(name) else {
            return Err(at.malformed(format!("tensor `{name}` is missing")));
        };
        if info.shape.dims() != shape {
            return Err(at.malformed(format!(
                "tensor `{name}` has shape {:?}, the metadata calls for {shape:?}",
                info.shape.dims()
            )));
        }
        info.read(&mut self.file, self.gguf.content.tensor_data_offset, self.device).map_err(|e| unread(at, &e))
    }
}

/// Why a tensor could not be had: the file is damaged, unless the device has no memory left.
fn unread(at: &FileContext, error: &candle_core::Error) -> InferError {
    InferError::out_of_memory(error).unwrap_or_else(|| at.malformed(first_line(error)))
}

/// candle's errors may carry a backtrace below the first line.
fn first_line(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
